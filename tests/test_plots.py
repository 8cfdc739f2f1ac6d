"""Every plot returns a picture with alt text, prints it, and draws what it was given."""

import numpy as np
import pytest

from course_utils import plots


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: plots.loss_curves("t", LoRA=[3, 2, 1], full=[1, 2, 3]),
            "Loss of LoRA over 3 steps; the last third lies",
        ),
        (lambda: plots.bars("t", "MB", {"a": 1.0, "b": 2000.0}), "Bar chart of 2 values; the largest is b."),
        (lambda: plots.histogram("t", "x", np.arange(10.0), [1, 2]), "Histogram of 10 values, with 2 marks."),
        (lambda: plots.matrices("t", one=np.eye(3), rank_1=np.ones((2, 2))), "2 matrices on one scale: one, rank 1."),
    ],
)
def test_pictures_describe_themselves(make, words, capsys):
    picture = make()
    assert capsys.readouterr().out.startswith(words)
    png, metadata = picture._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert metadata["alt"].startswith(words)


def test_loss_curves_say_whether_the_loss_fell(capsys):
    plots.loss_curves("t", down=[3, 2, 1], up=[1, 2, 3])
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("True.")
    assert second.endswith("False.")


def test_curves_hold_the_data_and_differ_without_color():
    axes = plots.loss_curves("t", a=[3, 2, 1], b=[2, 2, 2]).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3, 2, 1], [2, 2, 2]]
    assert len({line.get_linestyle() for line in axes.lines}) == 2
    assert axes.get_ylim()[0] == 0


def test_labels_of_close_curves_do_not_overlap():
    axes = plots.loss_curves("t", a=[3, 1.00], b=[3, 1.01], c=[3, 1.02]).axes[0]
    heights = sorted(text.xy[1] for text in axes.texts)
    assert min(np.diff(heights)) >= 0.2
