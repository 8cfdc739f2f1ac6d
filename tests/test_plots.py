"""Every plot returns a picture with alt text, prints it, and draws what it was given."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from course_utils import plots

NAN, INF = float("nan"), float("inf")
STACK = pd.DataFrame({"weights": [4.0, 4.0], "states": [8.0, 0.5]}, index=["full", "LoRA"])
LOOKS = pd.DataFrame(
    {"run": [0, 0, 1, 1], "r": [1, 64, 1, 64], "accuracy": [0.1, 0.9, 0.3, 0.7], "lost": [0.01, 0.1, 0.02, 0.3]}
)
POINTS = pd.DataFrame({"lr": [1e-4, 1e-3], "gain": [0.25, 0.5], "gain_half": [0.1, 0.05]})


def runs(groups, x=("accuracy",), **options):
    return plots.runs("t", groups, {column: column for column in x}, "lost", ylabel="y", **options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: plots.loss_curves("t", {"LoRA": [3, 2, 1], "full": [1, 2, 3]}),
            "Loss of LoRA over 3 steps; the last third lies",
        ),
        (lambda: plots.bars("t", "MB", {"a": 1.0, "b": 2000.0}, " MB"), "Bar chart of 2 values: a 1 MB, b 2,000 MB."),
        (
            lambda: plots.histogram("t", "x", np.arange(10.0), [1, 2]),
            "Histogram of 10 values, with 2 marks; median 4.5, nine tenths between 0.45 and 8.55.",
        ),
        (
            lambda: plots.matrices("t", {"one": np.eye(3), "rank 1": np.ones((2, 2))}),
            "2 matrices on one scale; largest entries, without sign: one 1, rank 1 1.",
        ),
        (
            lambda: plots.curves("t", {"a": POINTS}, "lr", "gain", xlabel="x", ylabel="y", log="x", label="lr"),
            "a: 2 points, lowest gain 0.25 at lr 0.0001, highest 0.5 at lr 0.001.",
        ),
        (
            lambda: plots.heat_maps(
                "t", "x", "y", {"a": np.array([[0.1, 0.2, 0.3], [0.4, 0.9, 0.15]]), "b": np.eye(2)}
            ),
            "a: 2 x 3 shares, 0.100 at (1, 1), 0.150 at (2, 3).\nb: 2 x 2 shares, 1.000 at",
        ),
        (
            lambda: plots.stacked_bars("t", "MB", STACK),
            "full: weights 4, states 8; together 12.\nLoRA: weights 4, states 0.5; together 4.5.",
        ),
        (
            lambda: runs({"a": LOOKS, "b": LOOKS[:1]}),
            "a: 4 runs, lost from 0.01 to 0.3.\nb: lost 0.01 at accuracy 0.1.",
        ),
        (
            lambda: runs({"a": LOOKS}, line="run"),
            "a: 2 runs, at the end accuracy 0.8 and lost 0.2 on average.",
        ),
        (
            lambda: runs({"a": LOOKS[:2], "b": LOOKS[2:3]}, line="run"),
            "a: lost 0.01 at accuracy 0.1, to 0.1 at 0.9.\nb: lost 0.02 at accuracy 0.3.",
        ),
    ],
)
def test_pictures_describe_themselves(make, words, capsys):
    picture = make()
    assert capsys.readouterr().out.startswith(words)
    png, metadata = picture._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert metadata["alt"].startswith(words.replace("\n", " "))


def test_loss_curves_say_whether_the_loss_fell(capsys):
    plots.loss_curves("t", {"down": [3, 2, 1], "up": [1, 2, 3]})
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("True.")
    assert second.endswith("False.")


@pytest.mark.parametrize("losses", [[INF, 2, 1], [3, 2, NAN], [NAN] * 3, [3, -INF, 1]])
def test_loss_curves_say_what_they_cannot_show(losses, capsys):
    """And no word on whether the loss fell: infinity in the first third would make that true."""
    axes = plots.loss_curves("t", {"a": losses}).axes[0]
    bad = np.flatnonzero(~np.isfinite(losses))
    expected = f"Loss of a over 3 steps; {len(bad)} of them not finite, the first at step {bad[0] + 1}."
    assert capsys.readouterr().out.strip() == expected
    assert np.isfinite(axes.texts[0].xy).all(), "the label is in the picture"


def test_curves_hold_the_data_and_differ_without_color():
    axes = plots.loss_curves("t", {"a": [3, 2, 1], "b": [2, 2, 2]}).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3, 2, 1], [2, 2, 2]]
    assert len({line.get_linestyle() for line in axes.lines}) == 2
    assert axes.get_ylim()[0] == 0


def curves(frames, **options):
    return plots.curves("t", frames, "lr", "gain", xlabel="x", ylabel="y", **options)


def in_gray(line: Line2D) -> bytes:
    """A line of the same style and markers, drawn in black."""
    figure = Figure(figsize=(1, 0.2))
    drawn = Line2D([0, 0.5, 1], [0.5, 0.5, 0.5])
    drawn.update_from(line)
    drawn.set(transform=figure.transFigure, clip_on=False, markevery=1)
    drawn.set(color="black", markerfacecolor="black", markeredgecolor="black")
    figure.add_artist(drawn)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return bytes(canvas.buffer_rgba())


@pytest.mark.parametrize("points", [2, 60])
@pytest.mark.parametrize("kind", ["curves", "loss_curves", "runs"])
def test_many_series_differ_without_color(kind, points):
    """Even one that has the name of a parameter."""
    names = ["title", "runs", *range(34)]
    if kind == "curves":
        frame = pd.DataFrame({"lr": range(points), "gain": range(points)})
        lines = [drawn.lines[0] for drawn in curves({str(name): frame for name in names}).axes[0].containers]
    elif kind == "runs":
        frame = pd.DataFrame({"run": 0, "accuracy": range(points), "lost": range(points)})
        lines = runs({str(name): frame for name in names}, line="run").axes[0].lines
    else:
        lines = plots.loss_curves("t", {str(name): range(points) for name in names}).axes[0].lines
    assert len({in_gray(line) for line in lines}) == len(lines) == 36
    assert all(points / line.get_markevery() >= 2 for line in lines), "markers are there to be seen"


def test_more_series_than_can_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="at most 36 lines"):
        plots.loss_curves("t", {str(name): [1] for name in range(37)})


def gains(*values):
    return {"a": POINTS, "b": pd.DataFrame({"lr": np.arange(len(values)) + 1.0, "gain": values})}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: plots.loss_curves("t", {}), "t: there is nothing to plot"),
        (lambda: plots.loss_curves("t", {"a": [1], "b": []}), "t, b: there is nothing to plot"),
        (lambda: curves({}), "t: there is nothing to plot"),
        (lambda: curves(gains()), "t, b, lr: there is nothing to plot"),
        (lambda: curves(gains(1, NAN, 3)), "t, b, gain: value 2 of 3 is nan"),
        (lambda: curves({"a": POINTS.assign(gain_half=[0.1, NAN])}), "t, a, gain_half: value 2 of 2 is nan"),
        (lambda: curves(gains(1, 0, 3), log="y"), "t, b, gain: value 2 of 3 is 0, .*logarithmic"),
        (lambda: plots.bars("t", "MB", {}), "t: there is nothing to plot"),
        (lambda: plots.bars("t", "MB", {"a": 1, "b": NAN, "c": 2}), "t, b: value 1 of 1 is nan"),
        (lambda: plots.bars("t", "MB", {"a": 1, "b": -2}, log=True), "t, b: value 1 of 1 is -2, .*logarithmic"),
        (lambda: plots.histogram("t", "x", []), "t: there is nothing to plot"),
        (lambda: plots.histogram("t", "x", [1, INF]), "t: value 2 of 2 is inf"),
        (lambda: plots.histogram("t", "x", [1, 2], [NAN]), "t, marks: value 1 of 1 is nan"),
        (lambda: plots.matrices("t", {}), "t: there is nothing to plot"),
        (lambda: plots.matrices("t", {"a": np.eye(2), "b": np.full((2, 2), INF)}), "t, b: value 1 of 4 is inf"),
        (lambda: plots.heat_maps("t", "x", "y", {}), "t: there is nothing to plot"),
        (lambda: plots.heat_maps("t", "x", "y", {"a": np.zeros((0, 3))}), "t, a: there is nothing to plot"),
        (lambda: plots.heat_maps("t", "x", "y", {"a": np.array([[0.1, NAN]])}), "t, a: value 2 of 2 is nan"),
        (lambda: plots.stacked_bars("t", "MB", STACK[:0]), "t: there is nothing to plot"),
        (lambda: plots.stacked_bars("t", "MB", -STACK), "t: a part of a bar cannot be negative"),
        (lambda: plots.stacked_bars("t", "MB", STACK * NAN), "t: value 1 of 4 is nan"),
        (
            lambda: plots.stacked_bars("t", "MB", pd.DataFrame([range(7)])),
            "t: a bar can have at most 6 parts, here are 7",
        ),
        (lambda: runs({}), "t: there is nothing to plot"),
        (lambda: runs({"a": LOOKS}, x=()), "t, x: there is nothing to plot"),
        (lambda: runs({"a": LOOKS, "b": LOOKS[:0]}), "t, b, accuracy: there is nothing to plot"),
        (lambda: runs({"a": LOOKS.assign(lost=[1, NAN, 1, 1])}), "t, a, lost: value 2 of 4 is nan"),
        (lambda: runs({"a": LOOKS.assign(lost=[1, 1, 0, 1])}, log="y"), "t, a, lost: value 3 of 4 is 0, .*logarithmic"),
    ],
)
def test_what_a_picture_would_leave_out_in_silence_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_zero_on_a_linear_axis_is_shown():
    assert plots.bars("t", "MB", {"a": 0, "b": -2})
    assert plots.histogram("t", "x", [1, 2])


def test_losses_on_a_logarithmic_axis_start_above_zero():
    axes = plots.loss_curves("t", {"a": [3, 0.01]}, log=True).axes[0]
    assert axes.get_yscale() == "log"
    assert 0 < axes.get_ylim()[0] < 0.01
    with pytest.raises(ValueError, match="t, a: value 2 of 2 is 0, .*logarithmic"):
        plots.loss_curves("t", {"a": [3, 0]}, log=True)


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
        plots.loss_curves("t", {"a": [3, 2, 1]}),
        plots.bars("t", "MB", {"a": 1.0}),
        plots.heat_maps("t", "x", "y", {"a": np.eye(2)}),
        plots.stacked_bars("t", "MB", STACK),
        plots.matrices("t", {"one": np.eye(3)}),
        plots.curves("t", {"a": POINTS}, "lr", "gain", xlabel="x", ylabel="y", label="lr"),
        runs({"a": LOOKS}, log="xy"),
    ],
    ids=["loss_curves", "bars", "heat_maps", "stacked_bars", "matrices", "curves", "runs"],
)
def test_all_text_can_be_read_on_a_projector(picture):
    sizes = [text.get_fontsize() for text in picture.findobj(Text) if text.get_text()]
    assert min(sizes) >= 14


def test_a_stacked_bar_shows_its_parts_end_to_end_and_their_sum():
    picture = plots.stacked_bars("t", "MB", STACK)
    (axes,) = picture.axes
    ends = {(round(bar.get_x(), 6), round(bar.get_x() + bar.get_width(), 6)) for bar in axes.patches}
    assert ends == {(0, 4), (4, 12), (4, 4.5)}
    assert [text.get_text() for text in axes.texts] == ["4.5", "12"]
    assert len({bar.get_hatch() for bar in axes.patches}) == 2


def test_heat_maps_share_one_scale():
    picture = plots.heat_maps("t", "x", "y", {"a": np.full((2, 2), 0.1), "b": np.full((2, 2), 0.3)})
    assert {axes.images[0].get_clim() for axes in picture.axes[:2]} == {(0, 0.3)}


def test_each_run_is_a_line_and_each_look_a_dot():
    axes = runs({"a": LOOKS, "b": LOOKS[2:]}, line="run").axes[0]
    drawn = [line.get_xydata().tolist() for line in axes.lines]
    first, second = [[0.1, 0.01], [0.9, 0.1]], [[0.3, 0.02], [0.7, 0.3]]
    assert drawn == [first, second, second]
    assert [line.get_marker() for line in axes.lines] == ["o", "o", "s"]
    assert [text.get_text() for text in axes.texts] == ["a", "b"]


def test_on_a_logarithmic_axis_the_settings_of_a_curve_are_the_ticks():
    frame = pd.DataFrame({"k": [2, 3, 4, 6, 32], "far": [47.0, 16.0, 0.9, 12.0, 27.0]})
    axes = plots.curves("t", {"a": frame}, "k", "far", xlabel="K", ylabel="far", log="xy").axes[0]
    axes.figure.canvas.draw()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "3", "4", "6", "32"]
    assert [label.get_text() for label in axes.get_xticklabels(minor=True)] == []
    assert {"1", "3", "10", "30"} <= {label.get_text() for label in axes.get_yticklabels()}


def test_several_columns_share_the_height_and_settings_are_the_ticks():
    left, right = runs({"a": LOOKS}, x=("r", "accuracy"), log="x").axes
    assert [line.get_linestyle() for line in (*left.lines, *right.lines)] == ["None", "None"]
    assert left.get_xticks().tolist() == [1, 64]
    assert left.xaxis.get_major_formatter()(64) == "64"
    assert left.get_ylim() == right.get_ylim()
    assert ([text.get_text() for text in left.texts], [text.get_text() for text in right.texts]) == ([], ["a"])


def close_runs(log):
    """Three groups whose last points nearly touch; the names in the order of these, from below."""
    ends = {"a": 1.02, "b": 1, "c": 1.01}
    return runs({name: LOOKS.assign(lost=LOOKS["lost"] * factor) for name, factor in ends.items()}, log=log), "bca"


@pytest.mark.parametrize(
    "make",
    [
        lambda: close_runs(""),
        lambda: close_runs("y"),
        lambda: (plots.loss_curves("t", {"a": [3, 1.00], "b": [3, 1.01], "c": [3, 1.02]}), "abc"),
        lambda: (plots.loss_curves("t", {"a": [1, 3], "b": [3, 3], "c": [2, 3]}, log=True), "abc"),
    ],
)
def test_names_at_the_right_do_not_overlap_and_keep_the_order_of_their_ends(make):
    picture, order = make()
    FigureCanvasAgg(picture).draw()
    found = {text.get_text(): Text.get_window_extent(text) for text in picture.axes[0].texts}
    boxes = [found[name] for name in order]
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))
    assert boxes[-1].y1 <= picture.bbox.y1
