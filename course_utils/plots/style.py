"""What do all pictures share? Colors, line styles, one canvas, alt text, and the refusal of what cannot be shown."""

import io
from collections.abc import Sized
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
FONT = 14
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


def canvas(title: str, xlabel: str, ylabel: str, width: float = 6.4, height: float = 3.6) -> tuple[Picture, Axes]:
    """An empty figure in the course's style, and its axes."""
    figure = Picture(figsize=(width, height), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=FONT + 1, loc="left")
    name_axes(axes, xlabel, ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def name_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Write what the axes mean, in the size of all text."""
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.tick_params(labelsize=FONT)


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
