"""How sure may I be? Means over runs and shares of items, with their 95 % intervals."""

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95


def mean_and_interval(values: pd.Series | Sequence[float]) -> tuple[float, float]:
    """Mean over runs and the half-width of its 95 % interval (Student's t over runs with different seeds).

    Raises:
        ValueError: fewer than two values, or one that is no finite number; names its row.
    """
    series = pd.Series(values, dtype=object)
    for row, value in series.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            shares = " (share_and_interval counts yes and no)" if isinstance(value, bool) else ""
            raise ValueError(f"row {row}: {value!r} is not a finite number{shares}; repeat that run or leave it out")
    if len(series) < 2:
        raise ValueError(f"an interval needs at least two runs, here is {len(series)}; add seeds, or leave it out")
    numbers = series.to_numpy(dtype=float)
    quantile = stats.t.ppf((1 + LEVEL) / 2, df=len(numbers) - 1)
    return float(numbers.mean()), float(quantile * numbers.std(ddof=1) / np.sqrt(len(numbers)))


def paired(a: pd.DataFrame, b: pd.DataFrame, column: str, by: str = "seed") -> tuple[float, float]:
    """Mean of a minus b over the runs with the same seed, and the half-width of its 95 % interval (paired t).

    Raises:
        ValueError: a seed stands twice in a table, or in one table only; or a difference has no interval.
    """
    first, second = (table.set_index(by)[column] for table in (a, b))
    if sorted(first.index) != sorted(second.index) or first.index.has_duplicates:
        seeds = " and ".join(str(sorted(series.index)) for series in (first, second))
        raise ValueError(f"{column}: runs are paired by {by}, and here are {seeds}; choose one run of each for both.")
    return mean_and_interval(first - second)


def share_and_interval(hits: int, trials: int) -> tuple[float, float, float]:
    """The share of hits among independent trials, and both ends of its 95 % interval (Wilson, 1927).

    Raises:
        ValueError: there are no trials, or the hits are no count between 0 and them.
    """
    if not 0 <= hits <= trials or not trials:
        raise ValueError(f"{hits} hits in {trials} trials: there have to be trials, and from 0 to as many hits.")
    interval = stats.binomtest(hits, trials).proportion_ci(LEVEL, method="wilson")
    return hits / trials, float(interval.low), float(interval.high)


def summarize(runs: pd.DataFrame, by: str, *columns: str) -> pd.DataFrame:
    """Mean and half-width of the 95 % interval of each column (`name`, `name_half`), one row for each value of `by`.

    Runs without a value of `by` are a group of their own.

    Raises:
        ValueError: no rows, no such column, or a group has no interval; names group, column and row.
    """
    if runs.empty:
        raise ValueError("The table has no rows to summarize; check how they were chosen.")
    if missing := [name for name in (by, *columns) if name not in runs]:
        raise ValueError(f"No column {', '.join(missing)}; the table has {', '.join(map(str, runs))}.")
    rows = []
    for value, group in runs.groupby(by, dropna=False):
        row = {by: value}
        for name in columns:
            try:
                row[name], row[f"{name}_half"] = mean_and_interval(group[name])
            except ValueError as error:
                raise ValueError(f"{by} = {value}, column {name!r}: {error}") from None
        rows.append(row)
    return pd.DataFrame(rows)


def plus_minus(row: pd.Series, column: str, digits: int = 3) -> str:
    """A mean and its half-width out of a row of `summarize`, as text: 0.980 ± 0.012."""
    return f"{row[column]:.{digits}f} ± {row[f'{column}_half']:.{digits}f}"


def clearly_less(column: str, a: pd.Series, b: pd.Series) -> bool:
    """Whether a's interval lies wholly below b's; both are rows of `summarize`."""
    return bool(a[column] + a[f"{column}_half"] < b[column] - b[f"{column}_half"])
