"""How do I see it? Each function returns a figure and prints what it shows in a line or two.

The lines are for those who cannot see the picture (they are its alt text, too), and for the notebook tests, which
compare text and skip pictures. What a picture would leave out in silence, such as NaN, is an error; of a curve of
losses the line says it.
One visual language: direct labels instead of legends where they fit, line styles and markers beside colors (so that a
grayscale print still reads), and a palette that color-blind readers can tell apart (Okabe and Ito, 2008).
"""

import io
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
FONT = 14
HATCHES = ("", "//", "..", "xx", "--", "\\\\")  # gray tells the parts of a bar apart by them
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
    axes.set_xlabel(xlabel, fontsize=FONT)
    axes.set_ylabel(ylabel, fontsize=FONT)
    axes.tick_params(labelsize=FONT)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def loss_curves(title: str, runs: Mapping[str, Sequence[float]]) -> Picture:
    """Loss against step, one line per run, labeled at its end. Losses in nats per supervised token.

    Raises:
        ValueError: no runs, a run without losses, or more than 36 runs.
    """
    _some(title, runs)
    figure, axes = canvas(title, "step", "loss (nats per token)")
    finite = {name: _finite(f"{title}, {name}", losses) for name, losses in runs.items()}
    ends = [float(losses[-1]) for losses in finite.values()]
    heights, last = _spread(ends, finite), max(map(len, runs.values()))
    for index, ((name, losses), end, height) in enumerate(zip(runs.items(), ends, heights, strict=True)):
        look = _look(index, len(losses), marked=False)
        axes.plot(range(1, len(losses) + 1), losses, **look)
        leader = {"arrowstyle": "-", "relpos": (0, 0.5), "color": look["color"], "linestyle": look["linestyle"]}
        beside = {"va": "center", "color": look["color"], "fontsize": FONT, "path_effects": HALO}
        axes.annotate(name, (len(losses), end), xytext=(1.1 * last, height), arrowprops=leader, **beside)
        axes.margins(x=0.02)
    axes.set_ylim(bottom=0)
    return figure.described(*(_trend(name, losses) for name, losses in runs.items()))


def curves(
    title: str,
    frames: Mapping[str, pd.DataFrame],
    x: str,
    y: str,
    *,
    xlabel: str,
    ylabel: str,
    log: str = "",
    label: str | None = None,
    xlim: tuple[float, float] | None = None,
) -> Picture:
    """Column `y` against column `x`, one line for each frame, labeled at its end.

    Columns `<x>_half` and `<y>_half`, where there are any, are half-widths of intervals; column `label` is written
    beside the points, on alternate sides. `log` names the logarithmic axes: "", "x", "y" or "xy".

    Raises:
        ValueError: no frames or points, more than 36 frames, or a value that the picture cannot show.
    """
    _some(title, frames)
    figure, axes = canvas(title, xlabel, ylabel, height=4.2)
    axes.set_xscale("log" if "x" in log else "linear")
    axes.set_yscale("log" if "y" in log else "linear")
    for index, (name, frame) in enumerate(frames.items()):
        halves = {}
        for axis, column in (("x", x), ("y", y)):
            _numbers(f"{title}, {name}, {column}", frame[column], log=axis in log)
            if (half := f"{column}_half") in frame:
                halves[f"{axis}err"] = _numbers(f"{title}, {name}, {half}", frame[half])
        look = _look(index, len(frame), marked=len(frame) <= 20)
        axes.errorbar(frame[x], frame[y], **halves, **look, capsize=4, elinewidth=1)
        texts = [] if label is None else [f"{value:g}" for value in frame[label]]
        texts = [*texts[:-1], ", ".join([name, *texts[-1:]])]
        left = label is not None and index % 2 == 0
        beside = {"textcoords": "offset points", "color": look["color"], "fontsize": FONT, "path_effects": HALO}
        for text, point in zip(texts, frame[[x, y]].iloc[-len(texts) :].to_numpy(), strict=True):
            offset = {"xytext": (-9, -14), "ha": "right"} if left else {"xytext": (9, 3 if label else -4), "ha": "left"}
            axes.annotate(text, point, **offset, **beside)
    axes.margins(x=0.14)
    axes.set_xlim(xlim)
    return figure.described(*(_extent(name, frame.reset_index(), x, y) for name, frame in frames.items()))


def heat_maps(title: str, xlabel: str, ylabel: str, panels: Mapping[str, np.ndarray]) -> Picture:
    """Matrices of shares side by side, from white (0) to black (the largest of all); rows and columns count from 1.

    Raises:
        ValueError: no matrix, an empty one, or a share that is not finite.
    """
    _some(title, panels)
    largest = max(float(_numbers(f"{title}, {name}", matrix).max()) for name, matrix in panels.items())
    figure = Picture(figsize=(4.2 * len(panels) + 0.8, 3.2), dpi=90, layout="constrained")
    figure.suptitle(title, fontsize=FONT + 1, x=0.01, ha="left")
    for axes, (name, matrix) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        rows, columns = matrix.shape
        extent = (0.5, columns + 0.5, rows + 0.5, 0.5)
        image = axes.imshow(matrix, cmap="Grays", vmin=0, vmax=largest, aspect="auto", extent=extent)
        axes.set_title(name, fontsize=FONT)
        axes.set_xlabel(xlabel, fontsize=FONT)
        axes.set_ylabel(ylabel, fontsize=FONT)
        axes.tick_params(labelsize=FONT)
    figure.colorbar(image, ax=figure.axes).ax.tick_params(labelsize=FONT)
    return figure.described(*(_shares(name, matrix) for name, matrix in panels.items()))


def bars(title: str, xlabel: str, values: Mapping[str, float], unit: str = "", log: bool = False) -> Picture:
    """Horizontal bars, each labeled with its value; the first entry on top.

    Raises:
        ValueError: no values, or one that the picture cannot show.
    """
    _some(title, values)
    for name, value in values.items():
        _numbers(f"{title}, {name}", value, log)
    figure, axes = canvas(title, xlabel, "", height=0.8 + 0.45 * len(values))
    names = list(values)[::-1]
    numbers = [values[name] for name in names]
    drawn = axes.barh(names, numbers, color=COLORS[0], log=log)
    axes.bar_label(drawn, labels=[f" {_short(number)}{unit}" for number in numbers], fontsize=FONT)
    axes.tick_params(axis="y", labelsize=FONT)
    axes.margins(x=0.18)
    listed = ", ".join(f"{name} {_short(value)}{unit}" for name, value in values.items())
    return figure.described(f"Bar chart of {len(values)} values: {listed}.")


def stacked_bars(title: str, xlabel: str, parts: pd.DataFrame) -> Picture:
    """One horizontal bar for each row, divided into the columns; its sum behind it, the columns' names above.

    Raises:
        ValueError: no rows or columns, more than six columns, or a part that is negative or not finite.
    """
    _some(title, parts.index)
    if len(parts.columns) > len(COLORS):
        raise ValueError(f"{title}: a bar can have at most {len(COLORS)} parts, here are {len(parts.columns)}.")
    if (_numbers(title, parts.to_numpy()) < 0).any():
        raise ValueError(f"{title}: a part of a bar cannot be negative.")
    figure, axes = canvas(title, xlabel, "", width=8.4, height=1.9 + 0.5 * len(parts))
    rows, left = parts.iloc[::-1], np.zeros(len(parts))
    for color, hatch, name in zip(COLORS, HATCHES, parts, strict=False):
        drawn = {"color": color, "edgecolor": "white", "hatch": hatch, "label": name}
        axes.barh(rows.index, rows[name], left=left, **drawn)
        left = left + rows[name].to_numpy()
    for place, total in enumerate(left):
        axes.annotate(_short(total), (total, place), xytext=(6, 0), textcoords="offset points", va="center", size=FONT)
    axes.tick_params(axis="y", labelsize=FONT)
    axes.margins(x=0.12)
    figure.legend(loc="outside lower center", ncols=3, fontsize=FONT, frameon=False, handleheight=1.4)
    listed = {bar: ", ".join(f"{name} {_short(value)}" for name, value in row.items()) for bar, row in parts.iterrows()}
    return figure.described(
        *(f"{bar}: {text}; together {_short(parts.loc[bar].sum())}." for bar, text in listed.items())
    )


def histogram(title: str, xlabel: str, values: Sequence[float], marks: Sequence[float] = ()) -> Picture:
    """How often values occur, with vertical marks at `marks`. No value, or one that is not finite: ValueError."""
    _numbers(title, values)
    figure, axes = canvas(title, xlabel, "share of values")
    axes.hist(values, bins=80, weights=np.full(len(values), 1 / len(values)), color=COLORS[5])
    for mark in marks:
        _numbers(f"{title}, marks", mark)
        axes.axvline(mark, color=COLORS[1], linewidth=1.5, linestyle="--")
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return figure.described(
        f"Histogram of {len(values)} values, with {len(marks)} marks; "
        f"median {middle:.3g}, nine tenths between {low:.3g} and {high:.3g}."
    )


def matrices(title: str, shown: Mapping[str, np.ndarray]) -> Picture:
    """Small matrices side by side as shaded squares, on one scale centered at zero. No entry, or NaN: ValueError."""
    _some(title, shown)
    limit = max(float(np.abs(_numbers(f"{title}, {name}", matrix)).max()) for name, matrix in shown.items())
    figure = Picture(figsize=(2.2 * len(shown) + 0.6, 2.9), dpi=90, layout="constrained")
    figure.suptitle(title, fontsize=FONT + 1, x=0.01, ha="left")
    for axes, (name, matrix) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        image = axes.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set_title(name, fontsize=FONT)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=figure.axes, shrink=0.7)
    return figure.described(f"{len(shown)} matrices on one scale: {', '.join(shown)}.")


def _look(index: int, points: int, marked: bool) -> dict[str, Any]:
    """How the line of a series looks: no two of 36 have the same line style and marker, so that gray tells them apart.

    The first six have styles of their own and markers if `marked`; the others need their markers.
    """
    turn, place = divmod(index, len(STYLES))
    if turn >= len(MARKERS):
        raise ValueError(f"A picture can show at most {len(STYLES) * len(MARKERS)} lines; draw fewer.")
    marker = MARKERS[(place + turn) % len(MARKERS)] if marked or turn else ""
    seldom = {"markersize": 7, "markevery": 1 + points // 21}  # twenty markers at most
    return {"color": COLORS[place], "linestyle": STYLES[place], "linewidth": 2, "marker": marker, **seldom}


def _some(what: str, things: Sized) -> None:
    if not len(things):
        raise ValueError(f"{what}: there is nothing to plot; check what was passed.")


def _numbers(what: str, values: Any, log: bool = False) -> np.ndarray:
    """The values, all of them such that a picture shows them."""
    numbers = np.asarray(values, dtype=float).ravel()
    _some(what, numbers)
    wrong = ~np.isfinite(numbers) | (log & (numbers <= 0))
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(
            f"{what}: value {place + 1} of {len(numbers)} is {numbers[place]:g}, which "
            f"{'a logarithmic axis' if log else 'a picture'} cannot show; leave it out, or find out where it came from."
        )
    return numbers


def _finite(what: str, losses: Sequence[float]) -> np.ndarray:
    """The losses that a curve can show; a zero if there is none."""
    _some(what, losses)
    finite = np.isfinite(losses)
    return np.asarray(losses)[finite] if finite.any() else np.zeros(1)


def _trend(name: str, losses: Sequence[float]) -> str:
    steps = len(losses)
    lost = np.flatnonzero(~np.isfinite(losses))
    if len(lost):
        return f"Loss of {name} over {steps} steps; {len(lost)} of them not finite, the first at step {lost[0] + 1}."
    third = max(1, steps // 3)
    fell = np.mean(losses[-third:]) < np.mean(losses[:third])
    return f"Loss of {name} over {steps} steps; the last third lies below the first third: {fell}."


def _extent(name: str, frame: pd.DataFrame, x: str, y: str) -> str:
    ends = (frame[y].idxmin(), frame[y].idxmax())
    lowest, highest = (f"{frame[y][i]:.3g} at {x} {frame[x][i]:.3g}" for i in ends)
    return f"{name}: {len(frame)} points, lowest {y} {lowest}, highest {highest}."


def _shares(name: str, matrix: np.ndarray) -> str:
    """The corners, and where the largest share lies."""
    rows, columns = matrix.shape
    place = np.unravel_index(matrix.argmax(), matrix.shape)
    first, last = matrix[0, 0], matrix[-1, -1]
    return (
        f"{name}: {rows} x {columns} shares, {first:.3f} at (1, 1), {last:.3f} at ({rows}, {columns}), "
        f"largest {matrix[place]:.3f} at ({place[0] + 1}, {place[1] + 1})."
    )


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _spread(ends: list[float], runs: Mapping[str, np.ndarray]) -> list[float]:
    """Label heights moved apart by at least 8 % of the range, so that labels do not overlap."""
    gap = 0.08 * max(max(losses) for losses in runs.values())
    placed: dict[int, float] = {}
    for index in sorted(range(len(ends)), key=ends.__getitem__):
        placed[index] = max(ends[index], max(placed.values(), default=-gap) + gap)
    return [placed[index] for index in range(len(ends))]
