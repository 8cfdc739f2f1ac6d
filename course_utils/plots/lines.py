"""How does one number change with another? Lines over steps, or over a setting."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from course_utils.plots.style import FEW, FONT, HALO, Picture, canvas, checked, label_right, log_ticks, some, style_of


def loss_curves(title: str, runs: Mapping[str, Sequence[float]], log: bool = False) -> Picture:
    """Loss against step, one line per run, named at its end. Losses in nats per supervised token.

    Raises:
        ValueError: no runs, a run without losses, a loss that `log` cannot show, or more than 36 runs.
    """
    some(title, runs)
    figure, axes = canvas(title, "step", "loss (nats per token)", log="y" if log else "")
    ends = {}
    for index, (name, losses) in enumerate(runs.items()):
        finite = checked(f"{title}, {name}", _finite(f"{title}, {name}", losses), log)
        axes.plot(range(1, len(finite) + 1), finite, **style_of(index, len(finite), marked=False))
        ends[name] = (len(finite), float(finite[-1]))
    axes.margins(x=0.02)
    if not log:
        axes.set_ylim(bottom=0)
    label_right(axes, ends)
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
    beside the points, on alternate sides. `log` names the logarithmic axes: "", "x", "y" or "xy". With few
    values of x, each of them has a tick.

    Raises:
        ValueError: no frames or points, more than 36 frames, or a value that the picture cannot show.
    """
    some(title, frames)
    figure, axes = canvas(title, xlabel, ylabel, height=4.2, log=log)
    for index, (name, frame) in enumerate(frames.items()):
        halves = {}
        for axis, column in (("x", x), ("y", y)):
            checked(f"{title}, {name}, {column}", frame[column], log=axis in log)
            if (half := f"{column}_half") in frame:
                halves[f"{axis}err"] = checked(f"{title}, {name}, {half}", frame[half])
        look = style_of(index, len(frame), marked=len(frame) <= 20)
        axes.errorbar(frame[x], frame[y], **halves, **look, capsize=4, elinewidth=1)
        texts = [] if label is None else [f"{value:g}" for value in frame[label]]
        texts = [*texts[:-1], ", ".join([name, *texts[-1:]])]
        left = label is not None and index % 2 == 0
        beside = {"textcoords": "offset points", "color": look["color"], "fontsize": FONT, "path_effects": HALO}
        for text, point in zip(texts, frame[[x, y]].iloc[-len(texts) :].to_numpy(), strict=True):
            offset = {"xytext": (-9, -14), "ha": "right"} if left else {"xytext": (9, 3 if label else -4), "ha": "left"}
            axes.annotate(text, point, **offset, **beside)
    for axis, column, few in ((axes.xaxis, x, FEW), (axes.yaxis, y, 0)):
        if axis.axis_name in log:
            log_ticks(axis, np.concatenate([frame[column] for frame in frames.values()]), few)
    axes.margins(x=0.14)
    axes.set_xlim(xlim)
    return figure.described(*(_extent(name, frame.reset_index(), x, y) for name, frame in frames.items()))


def _finite(what: str, losses: Sequence[float]) -> np.ndarray:
    """The losses that a curve can show; a zero if there is none."""
    some(what, losses)
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
