"""Every plot returns a picture with alt text, prints it, and draws what it was given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from course_utils import plots

POINTS = pd.DataFrame({"lr": [1e-4, 1e-3], "gain": [0.25, 0.5], "gain_half": [0.1, 0.05]})


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
        (
            lambda: plots.curves("t", {"a": POINTS}, "lr", "gain", xlabel="x", ylabel="y", log="x", label="lr"),
            "a: 2 points, lowest gain 0.25 at lr 0.0001, highest 0.5 at lr 0.001.",
        ),
        (
            lambda: plots.heat_map("t", "x", "y", np.array([[0.1, 0.2, 0.3], [0.4, 0.9, 0.1]])),
            "Heat map of 2 x 3 shares; the largest is at (2, 2).",
        ),
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


def test_curves_show_points_intervals_and_labels():
    frames = {"a": POINTS, "b": POINTS[1:]}  # the second one's index does not start at zero
    axes = plots.curves("t", frames, "lr", "gain", xlabel="rate", ylabel="gain", log="xy", label="lr").axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.containers[0].lines[0].get_xydata().tolist() == [[1e-4, 0.25], [1e-3, 0.5]]
    (bars,) = axes.containers[0].lines[2]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[0.15, 0.35], [0.45, 0.55]]
    assert [text.get_text() for text in axes.texts] == ["0.0001", "a, 0.001", "b, 0.001"]


@pytest.mark.parametrize(
    "picture",
    [
        plots.loss_curves("t", a=[3, 2, 1]),
        plots.bars("t", "MB", {"a": 1.0}),
        plots.heat_map("t", "x", "y", np.eye(2)),
        plots.matrices("t", one=np.eye(3)),
        plots.curves("t", {"a": POINTS}, "lr", "gain", xlabel="x", ylabel="y", label="lr"),
    ],
    ids=["loss_curves", "bars", "heat_map", "matrices", "curves"],
)
def test_all_text_has_at_least_12_points(picture):
    sizes = [text.get_fontsize() for text in picture.findobj(Text) if text.get_text()]
    assert min(sizes) >= 12
