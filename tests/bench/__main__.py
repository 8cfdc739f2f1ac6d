"""`python -m tests.bench`: how fast is the recipe here? Prints a table, and writes build/bench.json and a plot."""

import json

import matplotlib.pyplot as plt
import pandas as pd
from rich.console import Console
from rich.table import Table

from course_utils.core import files
from tests.bench import report, speed


def show(rows: pd.DataFrame) -> None:
    """The rows as a table; the last two columns are speeds divided by that of the variant they name."""
    table = Table(*report.BENCH_HEAD)
    for line in report.bench_rows(rows):
        table.add_row(*line)
    Console().print(table)


def plot(rows: pd.DataFrame) -> plt.Figure:
    """Speed of each variant, with its value."""
    kinds = list(rows.groupby(["dtype", "method"], sort=False))
    figure, axes = plt.subplots(1, len(kinds), figsize=(4 * len(kinds), 2.6), sharey=True, layout="constrained")
    for axis, ((dtype, method), kind) in zip([axes] if len(kinds) == 1 else axes, kinds, strict=True):
        axis.barh(kind.variant, kind.tokens_per_second, color="0.75")
        for place, speed_ in enumerate(kind.tokens_per_second):
            axis.annotate(
                f"{speed_:.0f}", (speed_, place), (-4, 0), textcoords="offset points", ha="right", va="center"
            )
        axis.set(title=f"{method}, {dtype}", xlabel="tokens per second")
        axis.invert_yaxis()
    return figure


if __name__ == "__main__":  # the variants run in processes of their own, which read this file, too
    found = speed.main()
    files.write_whole(files.ROOT / "build" / "bench.json", json.dumps(found, indent=1))
    show(pd.DataFrame(found))
    plot(pd.DataFrame(found)).savefig(files.ROOT / "build" / "bench.png", dpi=150)
