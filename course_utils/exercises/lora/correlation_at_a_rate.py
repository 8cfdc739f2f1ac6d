"""Does the size of an update foretell forgetting, once the rate is the same?

Over all runs a larger update goes with more forgetting. But both grow with the learning rate, so perhaps neither says
anything of the other. `runs` has a row for each run, with its rate `lr`, `update_norm` and `forgetting`.

Compute the correlation *at a fixed rate, over all rates at once*: take the logarithms, subtract from each column the
mean over the runs of the same rate, and correlate what is left. Then try it on stored runs, those of LoRA on the dates:
`studies.looks().query("data == 'dates' and method == 'lora' and schedule == 'constant' and step == steps")`. What does
`np.log(runs[["update_norm", "forgetting"]]).corr()` say of them, and what is left of it?
"""

import functools

import numpy as np
import pandas as pd

from course_utils import studies
from course_utils.exercises.exercise import Exercise

COLUMNS = ["update_norm", "forgetting"]


def correlation_at_a_rate(runs: pd.DataFrame) -> float:
    """Correlation of the logarithms of update_norm and forgetting, within the runs of the same rate."""
    logs = np.log(runs[["update_norm", "forgetting"]])
    return (logs - logs.groupby(runs["lr"]).transform("mean")).corr().iloc[0, 1]


@functools.cache
def cases() -> dict[str, tuple[pd.DataFrame]]:
    rng, made = np.random.default_rng(0), []
    for lr, runs, norm, spread in ((1e-5, 3, 1.0, 0.1), (1e-4, 5, 6.0, 0.3), (1e-3, 9, 30.0, 0.8)):
        part = rng.normal(0, spread, runs)
        forgetting = 0.02 * norm * np.exp(-0.6 * part + rng.normal(0, 0.2, runs))
        made.append(pd.DataFrame({"lr": lr, "update_norm": norm * np.exp(part), "forgetting": forgetting}))
    stored = studies.looks().query("data == 'dates' and method == 'lora' and schedule == 'constant' and step == steps")
    return {
        "made runs at three rates": (pd.concat(made, ignore_index=True),),
        "the stored runs of LoRA on the dates": (stored[["lr", *COLUMNS]].reset_index(drop=True),),
    }


def rates_mixed(runs):
    return np.log(runs[COLUMNS]).corr().iloc[0, 1]


def no_logarithms(runs):
    return (runs[COLUMNS] - runs[COLUMNS].groupby(runs["lr"]).transform("mean")).corr().iloc[0, 1]


def of_the_means(runs):
    return np.log(runs[COLUMNS]).groupby(runs["lr"]).mean().corr().iloc[0, 1]


def mean_of_correlations(runs):
    logs = np.log(runs[COLUMNS])
    return float(np.mean([logs[runs["lr"] == lr].corr().iloc[0, 1] for lr in runs["lr"].unique()]))


def one_column(runs):
    logs = np.log(runs[COLUMNS])
    return logs["update_norm"].corr(logs["forgetting"] - logs["forgetting"].groupby(runs["lr"]).transform("mean"))


def by_regression(runs):
    rates = (runs["lr"].to_numpy()[:, None] == runs["lr"].unique()).astype(float)
    logs = np.log(runs[COLUMNS].to_numpy(dtype=float))
    x, y = (logs - rates @ np.linalg.lstsq(rates, logs, rcond=None)[0]).T
    return (x @ y) / np.sqrt((x @ x) * (y @ y))


EXERCISE = Exercise(
    answer=correlation_at_a_rate,
    kind="find it",
    difficulty=2,
    minutes=10,
    cases=cases,
    mistakes={
        rates_mixed: "{yours:.2f} is the correlation over all runs, whatever their rate. At a fixed rate it is "
        "another one.",
        no_logarithms: "{yours:.2f} was computed without the logarithms: then the runs at the largest rate decide "
        "alone.",
        of_the_means: "{yours:.2f} is the correlation of one mean for each rate. That is what the rate does; what is "
        "asked for is what is left without it.",
        mean_of_correlations: "{yours:.2f} is the mean of one correlation for each rate. A rate with two runs, whose "
        "correlation is always 1 or -1, then counts as much as one with nine.",
        one_column: "{yours:.2f}: the mean of each rate was taken out of one column only; the other one still moves "
        "with the rate, which dilutes the correlation.",
    },
    hints=(
        '`groupby(...).transform("mean")` gives a table of the same length, with the mean of its group in each row.',
        "First the logarithms of both columns, then both minus their means over the rows of the same `lr`, then "
        "`.corr()` of the two columns and its entry off the diagonal.",
    ),
    alternatives=(by_regression,),
)
