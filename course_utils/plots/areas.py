"""How large is each part, and where does it lie? Bars, counts, and matrices as shaded squares."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from course_utils.plots.style import COLORS, FONT, Picture, canvas, checked, name_axes, short, side_by_side, some

HATCHES = ("", "//", "..", "xx", "--", "\\\\")  # gray tells the parts of a bar apart by them


def heat_maps(title: str, xlabel: str, ylabel: str, panels: Mapping[str, np.ndarray]) -> Picture:
    """Matrices of shares side by side, from white (0) to black (the largest of all); rows and columns count from 1.

    Raises:
        ValueError: no matrix, an empty one, or a share that is not finite.
    """
    some(title, panels)
    largest = max(float(checked(f"{title}, {name}", matrix).max()) for name, matrix in panels.items())
    figure, shown = side_by_side(title, len(panels), 4.2 * len(panels) + 0.8, 3.2)
    for axes, matrix in _named(shown, panels):
        rows, columns = matrix.shape
        extent = (0.5, columns + 0.5, rows + 0.5, 0.5)
        image = axes.imshow(matrix, cmap="Grays", vmin=0, vmax=largest, aspect="auto", extent=extent)
        name_axes(axes, xlabel, ylabel)
    figure.colorbar(image, ax=figure.axes).ax.tick_params(labelsize=FONT)
    return figure.described(*(_shares(name, matrix) for name, matrix in panels.items()))


def bars(title: str, xlabel: str, values: Mapping[str, float], unit: str = "", log: bool = False) -> Picture:
    """Horizontal bars, each labeled with its value; the first entry on top.

    Raises:
        ValueError: no values, or one that the picture cannot show.
    """
    some(title, values)
    for name, value in values.items():
        checked(f"{title}, {name}", value, log)
    figure, axes = canvas(title, xlabel, "", height=0.8 + 0.45 * len(values))
    names = list(values)[::-1]
    numbers = [values[name] for name in names]
    drawn = axes.barh(names, numbers, color=COLORS[0], log=log)
    axes.bar_label(drawn, labels=[f" {short(number)}{unit}" for number in numbers], fontsize=FONT)
    axes.tick_params(axis="y", labelsize=FONT)
    axes.margins(x=0.18)
    return figure.described(f"Bar chart of {len(values)} values: {_listed(values, unit)}.")


def stacked_bars(title: str, xlabel: str, parts: pd.DataFrame) -> Picture:
    """One horizontal bar for each row, divided into the columns; its sum behind it, the columns' names above.

    Raises:
        ValueError: no rows or columns, more than six columns, or a part that is negative or not finite.
    """
    some(title, parts.index)
    if len(parts.columns) > len(COLORS):
        raise ValueError(f"{title}: a bar can have at most {len(COLORS)} parts, here are {len(parts.columns)}.")
    if (checked(title, parts.to_numpy()) < 0).any():
        raise ValueError(f"{title}: a part of a bar cannot be negative.")
    figure, axes = canvas(title, xlabel, "", width=8.4, height=1.9 + 0.5 * len(parts))
    rows, left = parts.iloc[::-1], np.zeros(len(parts))
    for color, hatch, name in zip(COLORS, HATCHES, parts, strict=False):
        drawn = {"color": color, "edgecolor": "white", "hatch": hatch, "label": name}
        axes.barh(rows.index, rows[name], left=left, **drawn)
        left = left + rows[name].to_numpy()
    for place, total in enumerate(left):
        axes.annotate(short(total), (total, place), xytext=(6, 0), textcoords="offset points", va="center", size=FONT)
    axes.tick_params(axis="y", labelsize=FONT)
    axes.margins(x=0.12)
    figure.legend(loc="outside lower center", ncols=3, fontsize=FONT, frameon=False, handleheight=1.4)
    return figure.described(*(f"{bar}: {_listed(row)}; together {short(row.sum())}." for bar, row in parts.iterrows()))


def histogram(title: str, xlabel: str, values: Sequence[float], marks: Sequence[float] = ()) -> Picture:
    """How often values occur, with vertical marks at `marks`. No value, or one that is not finite: ValueError."""
    checked(title, values)
    figure, axes = canvas(title, xlabel, "share of values")
    axes.hist(values, bins=80, weights=np.full(len(values), 1 / len(values)), color=COLORS[5])
    for mark in marks:
        checked(f"{title}, marks", mark)
        axes.axvline(mark, color="black", linewidth=1, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return figure.described(
        f"Histogram of {len(values)} values, with {len(marks)} marks; "
        f"median {middle:.3g}, nine tenths between {low:.3g} and {high:.3g}."
    )


def matrices(title: str, shown: Mapping[str, np.ndarray]) -> Picture:
    """Small matrices side by side as shaded squares, on one scale centered at zero. No entry, or NaN: ValueError."""
    some(title, shown)
    limit = max(float(np.abs(checked(f"{title}, {name}", matrix)).max()) for name, matrix in shown.items())
    figure, panels = side_by_side(title, len(shown), 2.2 * len(shown) + 0.6, 2.9)
    for axes, matrix in _named(panels, shown):
        image = axes.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=figure.axes, shrink=0.7)
    largest = {name: float(np.abs(matrix).max()) for name, matrix in shown.items()}
    return figure.described(f"{len(shown)} matrices on one scale; largest entries, without sign: {_listed(largest)}.")


def _named(panels: list[Axes], shown: Mapping[str, np.ndarray]) -> Iterator[tuple[Axes, np.ndarray]]:
    """Each matrix with the panel that it is drawn in, under its name."""
    for axes, (name, matrix) in zip(panels, shown.items(), strict=True):
        axes.set_title(name, fontsize=FONT)
        yield axes, matrix


def _listed(values: Mapping[str, float] | pd.Series, unit: str = "") -> str:
    return ", ".join(f"{name} {short(value)}{unit}" for name, value in values.items())


def _shares(name: str, matrix: np.ndarray) -> str:
    """The corners; where the largest share lies may hang on rounding."""
    rows, columns = matrix.shape
    first, last = matrix[0, 0], matrix[-1, -1]
    return f"{name}: {rows} x {columns} shares, {first:.3f} at (1, 1), {last:.3f} at ({rows}, {columns})."
