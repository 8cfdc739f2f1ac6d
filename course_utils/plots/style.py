"""What do all pictures share? Colors, line styles, one canvas, alt text, and the refusal of what cannot be shown."""

import io
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
FONT = 14
FEW = 8  # so many settings at most get a tick each on a logarithmic axis
HALO = [withStroke(linewidth=3, foreground="white")]  # a label that lies on a line stays readable


class Picture(Figure):
    """A figure that notebooks show as a PNG with alt text. It needs no pyplot, so nothing is kept open behind it."""

    summary = ""

    def described(self, *lines: str) -> "Picture":
        """Print what the picture shows, keep it as alt text, and return the picture."""
        self.summary = " ".join(lines)
        print("\n".join(lines))
        return self

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue(), {"alt": self.summary}


def canvas(
    title: str, xlabel: str, ylabel: str, width: float = 6.4, height: float = 3.6, log: str = ""
) -> tuple[Picture, Axes]:
    """An empty figure in the course's style, and its axes; `log` names the logarithmic ones: "", "x", "y" or "xy"."""
    figure = Picture(figsize=(width, height), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=FONT + 1, loc="left")
    open_axes(axes, xlabel, ylabel, log)
    return figure, axes


def side_by_side(
    title: str, panels: int, width: float, height: float, sharey: bool = False
) -> tuple[Picture, list[Axes]]:
    """An empty figure under one title, and the axes of its panels in one row."""
    figure = Picture(figsize=(width, height), dpi=90, layout="constrained")
    figure.suptitle(title, fontsize=FONT + 1, x=0.01, ha="left")
    return figure, list(figure.subplots(1, panels, sharey=sharey, squeeze=False)[0])


def open_axes(axes: Axes, xlabel: str, ylabel: str, log: str) -> None:
    """Name the axes, leave out the frame above and at the right, and make those logarithmic that `log` names."""
    name_axes(axes, xlabel, ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xscale("log" if "x" in log else "linear")
    axes.set_yscale("log" if "y" in log else "linear")


def name_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Write what the axes mean, in the size of all text."""
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.tick_params(labelsize=FONT)


def log_ticks(axis: Axis, values: np.ndarray, few: int = FEW) -> None:
    """On a logarithmic axis, settings that were chosen (ranks, rates) have a tick each, more than `few` round ones."""
    settings = np.unique(values.astype(float))
    if len(settings) <= few:
        axis.set_major_locator(FixedLocator(settings))
    else:
        axis.set_major_locator(MaxNLocator(4) if settings[-1] < 5 * settings[0] else LogLocator(subs=(1, 3)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))


def _plain(number: float) -> str:
    """As one writes it in a text: 0.03, 16, 1e-5."""
    return (
        f"{number:g}"
        if 0.01 <= number < 1e5
        else np.format_float_scientific(float(f"{number:.6g}"), trim="-", exp_digits=1)
    )


def label_right(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write the names of series at the right edge, in the order of their last points, none over another.

    A name's height is that of its point, moved up where there is no room.
    """
    axes.autoscale_view()  # the limits are settled only when something asks for them
    gap = 1.35 * FONT / 72 / (axes.figure.get_figheight() * 0.78)  # a line of text, as a share of the axes
    heights = {name: _height(axes, *end) for name, end in ends.items()}
    placed: dict[str, float] = {}
    for name in sorted(heights, key=heights.__getitem__):
        placed[name] = max(heights[name], max(placed.values(), default=-gap) + gap)
    too_high = max(0.0, max(placed.values()) - 1)
    for index, (name, end) in enumerate(ends.items()):
        look = style_of(index, 1, marked=True)
        leader = {"arrowstyle": "-", "relpos": (0, 0.5), "color": look["color"], "linewidth": 0.8}
        where = {"xytext": (1.05, placed[name] - too_high), "textcoords": "axes fraction", "va": "center"}
        axes.annotate(name, end, arrowprops=leader, color=look["color"], fontsize=FONT, annotation_clip=False, **where)


def _height(axes: Axes, x: float, y: float) -> float:
    """How high a point lies, as a share of the axes."""
    return float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1])


def style_of(index: int, points: int, marked: bool) -> dict[str, Any]:
    """How the line of a series looks: no two of 36 have the same line style and marker, so that gray tells them apart.

    The first six have styles of their own and markers if `marked`; the others need their markers.
    """
    turn, place = divmod(index, len(STYLES))
    if turn >= len(MARKERS):
        raise ValueError(f"A picture can show at most {len(STYLES) * len(MARKERS)} lines; draw fewer.")
    marker = MARKERS[(place + turn) % len(MARKERS)] if marked or turn else ""
    seldom = {"markersize": 7, "markevery": 1 + points // 21}  # twenty markers at most
    return {"color": COLORS[place], "linestyle": STYLES[place], "linewidth": 2, "marker": marker, **seldom}


def some(what: str, things: Sized) -> None:
    """Refuse to draw nothing."""
    if not len(things):
        raise ValueError(f"{what}: there is nothing to plot; check what was passed.")


def checked(what: str, values: Any, log: bool = False) -> np.ndarray:
    """The values, all of them such that a picture shows them."""
    numbers = np.asarray(values, dtype=float).ravel()
    some(what, numbers)
    wrong = ~np.isfinite(numbers) | (log & (numbers <= 0))
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(
            f"{what}: value {place + 1} of {len(numbers)} is {numbers[place]:g}, which "
            f"{'a logarithmic axis' if log else 'a picture'} cannot show; leave it out, or find out where it came from."
        )
    return numbers


def short(number: float) -> str:
    """A number beside a bar."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
