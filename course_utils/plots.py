"""How do I see it? Each function returns a figure and prints what it shows in a line or two.

The lines are for those who cannot see the picture (they are its alt text, too), and for the notebook tests, which
compare text and skip pictures.
One visual language: direct labels instead of legends where they fit, line styles and markers beside colors (so that a
grayscale print still reads), and a palette that color-blind readers can tell apart (Okabe and Ito, 2008).
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
FONT = 12


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


def loss_curves(title: str = "Training loss", **runs: Sequence[float]) -> Picture:
    """Loss against step, one line per run, labeled at its end. Losses in nats per supervised token."""
    figure, axes = canvas(title, "step", "loss (nats per token)")
    ends = _spread([float(np.mean(losses[-3:])) for losses in runs.values()], runs)
    for index, ((name, losses), end) in enumerate(zip(runs.items(), ends, strict=True)):
        axes.plot(range(1, len(losses) + 1), losses, color=COLORS[index], linestyle=STYLES[index], linewidth=2)
        axes.annotate(
            _name(name),
            (len(losses), end),
            xytext=(6, 0),
            textcoords="offset points",
            color=COLORS[index],
            fontsize=FONT,
        )
        axes.margins(x=0.02)
    axes.set_ylim(bottom=0)
    return figure.described(*(_trend(_name(name), losses) for name, losses in runs.items()))


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
    """
    figure, axes = canvas(title, xlabel, ylabel, height=4.2)
    axes.set_xscale("log" if "x" in log else "linear")
    axes.set_yscale("log" if "y" in log else "linear")
    for index, (name, frame) in enumerate(frames.items()):
        color = COLORS[index]
        look = {"color": color, "linestyle": STYLES[index], "linewidth": 2, "capsize": 4, "elinewidth": 1}
        marker = MARKERS[index] if len(frame) <= 20 else ""
        halves = {"xerr": frame.get(f"{x}_half"), "yerr": frame.get(f"{y}_half")}
        axes.errorbar(frame[x], frame[y], marker=marker, markersize=7, **halves, **look)
        texts = [] if label is None else [f"{value:g}" for value in frame[label]]
        texts = [*texts[:-1], ", ".join([name, *texts[-1:]])]
        left = label is not None and index % 2 == 0
        beside = {"textcoords": "offset points", "color": color, "fontsize": FONT, "ha": "right" if left else "left"}
        for text, point in zip(texts, frame[[x, y]].iloc[-len(texts) :].to_numpy(), strict=True):
            axes.annotate(text, point, xytext=(-9, -14) if left else (9, 3 if label else -4), **beside)
    axes.margins(x=0.14)
    axes.set_xlim(xlim)
    return figure.described(*(_extent(name, frame.reset_index(), x, y) for name, frame in frames.items()))


def heat_map(title: str, xlabel: str, ylabel: str, matrix: np.ndarray) -> Picture:
    """A matrix of shares between 0 (white) and 1 (black); rows and columns count from 1."""
    figure, axes = canvas(title, xlabel, ylabel, height=2.8)
    rows, columns = matrix.shape
    image = axes.imshow(
        matrix, cmap="Grays", vmin=0, vmax=1, aspect="auto", extent=(0.5, columns + 0.5, rows + 0.5, 0.5)
    )
    figure.colorbar(image, ax=axes).ax.tick_params(labelsize=FONT)
    row, column = np.unravel_index(matrix.argmax(), matrix.shape)
    return figure.described(f"Heat map of {rows} x {columns} shares; the largest is at ({row + 1}, {column + 1}).")


def bars(title: str, xlabel: str, values: Mapping[str, float], unit: str = "", log: bool = False) -> Picture:
    """Horizontal bars, each labeled with its value; the first entry on top."""
    figure, axes = canvas(title, xlabel, "", height=0.8 + 0.45 * len(values))
    names = list(values)[::-1]
    numbers = [values[name] for name in names]
    drawn = axes.barh(names, numbers, color=COLORS[0], log=log)
    axes.bar_label(drawn, labels=[f" {_short(number)}{unit}" for number in numbers], fontsize=FONT)
    axes.tick_params(axis="y", labelsize=FONT)
    axes.margins(x=0.18)
    return figure.described(f"Bar chart of {len(values)} values; the largest is {max(values, key=values.get)}.")


def histogram(title: str, xlabel: str, values: Sequence[float], marks: Sequence[float] = ()) -> Picture:
    """How often values occur, with vertical marks at `marks`."""
    figure, axes = canvas(title, xlabel, "share of values")
    axes.hist(values, bins=80, weights=np.full(len(values), 1 / len(values)), color=COLORS[5])
    for mark in marks:
        axes.axvline(mark, color=COLORS[1], linewidth=1.5, linestyle="--")
    return figure.described(f"Histogram of {len(values)} values, with {len(marks)} marks.")


def matrices(title: str, **shown: np.ndarray) -> Picture:
    """Small matrices side by side as shaded squares, on one common scale centered at zero."""
    figure = Picture(figsize=(2.2 * len(shown) + 0.6, 2.9), dpi=90, layout="constrained")
    figure.suptitle(title, fontsize=FONT + 1, x=0.01, ha="left")
    limit = max(float(np.abs(matrix).max()) for matrix in shown.values())
    for axes, (name, matrix) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        image = axes.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set_title(_name(name), fontsize=FONT)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=figure.axes, shrink=0.7)
    return figure.described(f"{len(shown)} matrices on one scale: {', '.join(_name(name) for name in shown)}.")


def _trend(name: str, losses: Sequence[float]) -> str:
    third = max(1, len(losses) // 3)
    fell = np.mean(losses[-third:]) < np.mean(losses[:third])
    return f"Loss of {name} over {len(losses)} steps; the last third lies below the first third: {fell}."


def _extent(name: str, frame: pd.DataFrame, x: str, y: str) -> str:
    ends = (frame[y].idxmin(), frame[y].idxmax())
    lowest, highest = (f"{frame[y][i]:.3g} at {x} {frame[x][i]:.3g}" for i in ends)
    return f"{name}: {len(frame)} points, lowest {y} {lowest}, highest {highest}."


def _name(identifier: str) -> str:
    return identifier.replace("_", " ")


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _spread(ends: list[float], runs: Mapping[str, Sequence[float]]) -> list[float]:
    """Label heights moved apart by at least 7 % of the range, so that labels do not overlap."""
    gap = 0.07 * max(max(losses) for losses in runs.values())
    placed: dict[int, float] = {}
    for index in sorted(range(len(ends)), key=ends.__getitem__):
        placed[index] = max(ends[index], max(placed.values(), default=-gap) + gap)
    return [placed[index] for index in range(len(ends))]
