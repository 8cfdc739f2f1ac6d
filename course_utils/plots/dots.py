"""What did each run do? A dot for each run, or a line for each run with a dot wherever it was looked at."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from course_utils.plots.style import Picture, checked, label_right, log_ticks, open_axes, side_by_side, some, style_of


def runs(
    title: str,
    groups: Mapping[str, pd.DataFrame],
    x: Mapping[str, str],
    y: str,
    *,
    ylabel: str,
    log: str = "",
    line: str | None = None,
) -> Picture:
    """Column `y` against one column, or against several side by side: a dot for each row, a marker for each group.

    Args:
        groups: tables by name; the names stand at the right, each with a line to its group's last row.
        x: columns, each with the name of its axis.
        log: the logarithmic axes, "", "x", "y" or "xy". With few values of x, each of them has a tick.
        line: the column that tells runs apart; the rows of a run are joined in their order.

    Raises:
        ValueError: no groups, rows or columns, more than 36 groups, or a value that the picture cannot show.
    """
    some(title, groups)
    some(f"{title}, x", x)
    figure, panels = side_by_side(title, len(x), 4.4 + 3.4 * len(x), 4.6, sharey=True)
    for axes, (column, xlabel) in zip(panels, x.items(), strict=True):
        open_axes(axes, xlabel, ylabel if axes is panels[0] else "", log)
        for index, (name, frame) in enumerate(groups.items()):
            checked(f"{title}, {name}, {column}", frame[column], log="x" in log)
            checked(f"{title}, {name}, {y}", frame[y], log="y" in log)
            _draw(axes, index, frame, column, y, line)
        for axis, shown, name in ((axes.xaxis, column, "x"), (axes.yaxis, y, "y")):
            if name in log:
                log_ticks(axis, np.concatenate([frame[shown] for frame in groups.values()]))
        axes.margins(x=0.08)
    ends = {name: frame.iloc[-1][[list(x)[-1], y]] for name, frame in groups.items()}
    label_right(panels[-1], {name: tuple(map(float, end)) for name, end in ends.items()})
    return figure.described(*(_summary(name, frame, list(x)[-1], y, line) for name, frame in groups.items()))


def _draw(axes: Axes, index: int, frame: pd.DataFrame, x: str, y: str, line: str | None) -> None:
    """The rows of one group: dots alone, or joined run by run."""
    look = style_of(index, 1, marked=True) | {"markersize": 6, "linewidth": 1.3}
    if line is None:
        axes.plot(frame[x], frame[y], **look | {"linestyle": ""})
        return
    for _, run in frame.groupby(line, sort=False):
        axes.plot(run[x], run[y], **look)


def _summary(name: str, frame: pd.DataFrame, x: str, y: str, line: str | None) -> str:
    """Where each run ends, from where to where a single one goes, or all dots between the least and the largest."""
    first, end = frame.iloc[0], frame.iloc[-1]
    if len(frame) == 1:
        return f"{name}: {y} {end[y]:.3g} at {x} {end[x]:.3g}."
    if line is None:
        low, high = frame[y].min(), frame[y].max()
        return f"{name}: {len(frame)} runs, {y} from {low:.3g} to {high:.3g}."
    if frame[line].nunique() == 1:
        return f"{name}: {y} {first[y]:.3g} at {x} {first[x]:.3g}, to {end[y]:.3g} at {end[x]:.3g}."
    last = frame.groupby(line, sort=False).last()
    return f"{name}: {len(last)} runs, at the end {x} {last[x].mean():.3g} and {y} {last[y].mean():.3g} on average."
