"""Which learning rate for a client who must not forget?

The client's model may lose at most `most` nats per token on general text, and shall learn as much as it can within
that. `looks` is a table like `studies.looks()`: each row is one look at a run, with its learning rate `lr`, its `step`
and its `seed`, and what was measured: `validation_nll`, `accuracy` (on the test questions) and `forgetting`.

Choose a setting, which is a rate *and* a step: of those whose forgetting lies surely below `most` (the upper end of its
95 % interval over the seeds does), the one with the lowest mean validation loss. Return `(lr, step)`, or None if no
setting is safe. Two things would be cheating: to choose by the test questions, and to choose by the luckiest seed.
"""

import functools

import numpy as np
import pandas as pd

from course_utils import intervals, studies
from course_utils.exercises.exercise import Exercise


def choose_rate(looks: pd.DataFrame, most: float) -> tuple[float, int] | None:
    """The rate and step with the lowest mean validation loss, of those that surely forget less than `most`."""
    safe = []
    for (lr, step), group in looks.groupby(["lr", "step"]):
        mean, half = intervals.mean_and_interval(group["forgetting"])
        if mean + half < most:
            safe.append((group["validation_nll"].mean(), lr, step))
    return min(safe)[1:] if safe else None


@functools.cache
def cases() -> dict[str, tuple[pd.DataFrame, float]]:
    rng, rows = np.random.default_rng(0), []
    for lr, lost, loss in ((1e-4, 0.10, 0.50), (3e-4, 0.20, 0.30), (1e-3, 0.60, 0.08)):
        for part, step in enumerate((10, 20, 40), 1):
            for seed in range(4):
                forgetting, nll = lost * part / 3 + rng.normal(0, 0.004), loss / part + rng.normal(0, 0.002)
                accuracy = 0.7 - nll + 0.25 * (lr == 1e-4)
                rows.append((lr, step, seed, nll, accuracy, forgetting))
    made = pd.DataFrame(rows, columns=["lr", "step", "seed", "validation_nll", "accuracy", "forgetting"])
    lucky = made.copy()
    lucky.loc[(lucky["lr"] == 1e-4) & (lucky["step"] == 20) & (lucky["seed"] == 2), "validation_nll"] = 0.01
    noisy = made.copy()
    noisy.loc[noisy["lr"] == 3e-4, "forgetting"] += noisy["seed"].map({0: -0.12, 1: 0.04, 2: 0.04, 3: 0.04})
    stored = studies.looks().query("data == 'dates' and method == 'lora' and r == 16 and schedule == 'constant'")
    columns = list(made)
    return {
        "a made table, at most 0.3 nats": (made, 0.3),
        "one lucky seed": (lucky, 0.15),
        "a rate whose seeds lie far apart": (noisy, 0.19),
        "a limit that no setting keeps": (made, 0.01),
        "the stored runs of LoRA on the dates": (stored[columns].reset_index(drop=True), 0.2),
    }


def _of_table(looks: pd.DataFrame, most: float, column: str = "validation_nll", sure: bool = True):
    table = looks.groupby(["lr", "step"], as_index=False).agg(
        lost=("forgetting", "mean"),
        sure=("forgetting", lambda values: sum(intervals.mean_and_interval(values))),
        best=(column, "mean"),
    )
    table = table[table["sure" if sure else "lost"] < most]
    return None if table.empty else tuple(table.loc[table["best"].idxmin(), ["lr", "step"]])


def means_alone(looks, most):
    return _of_table(looks, most, sure=False)


def lower_end(looks, most):
    table = looks.groupby(["lr", "step"], as_index=False).agg(
        least=("forgetting", lambda values: np.subtract(*intervals.mean_and_interval(values))),
        loss=("validation_nll", "mean"),
    )
    table = table[table["least"] < most]
    return None if table.empty else tuple(table.loc[table["loss"].idxmin(), ["lr", "step"]])


def by_the_test(looks, most):
    return _of_table(looks.assign(accuracy=-looks["accuracy"]), most, "accuracy")


def safest(looks, most):
    return _of_table(looks, most, "forgetting")


def at_the_end(looks, most):
    return choose_rate(looks[looks["step"] == looks["step"].max()], most)


def luckiest_seed(looks, most):
    chosen = looks.groupby(["lr", "step"])["forgetting"].transform(lambda v: sum(intervals.mean_and_interval(v))) < most
    return None if not chosen.any() else tuple(looks.loc[looks[chosen]["validation_nll"].idxmin(), ["lr", "step"]])


def limit_forgotten(looks, most):
    return choose_rate(looks, float("inf"))


def of_a_table(looks, most):
    table = intervals.summarize(
        looks.assign(key=list(zip(looks["lr"], looks["step"], strict=True))), "key", "forgetting"
    )
    losses = looks.groupby(["lr", "step"])["validation_nll"].mean()
    safe = table[table["forgetting"] + table["forgetting_half"] < most]["key"]
    return losses[list(safe)].idxmin() if len(safe) else None


EXERCISE = Exercise(
    answer=choose_rate,
    kind="judge it",
    difficulty=3,
    minutes=12,
    cases=cases,
    mistakes={
        means_alone: "Wrong for {wrong} of {cases} tables: a setting was taken whose forgetting is below the limit on "
        "average, but not surely: the upper end of its interval, mean plus half-width, is not.",
        lower_end: "Wrong for {wrong} of {cases} tables: a setting was taken whose forgetting *may* be below the "
        "limit: mean minus half-width is. Surely below is one whose upper end is, mean plus half-width.",
        by_the_test: "Wrong for {wrong} of {cases} tables: the test accuracy chose. Then nothing is left that could "
        "say how good the choice is: choose by the validation loss.",
        safest: "Wrong for {wrong} of {cases} tables: that is the setting that forgets least. The limit is enough for "
        "the client, who wants to learn as much as it allows.",
        at_the_end: "Wrong for {wrong} of {cases} tables: only the last step was looked at. A larger rate that is "
        "stopped earlier is a setting, too.",
        luckiest_seed: "Wrong for {wrong} of {cases} tables: the single lowest loss chose, and one lucky seed with "
        "it. Average over the seeds first.",
        limit_forgotten: "Wrong for {wrong} of {cases} tables: the limit of forgetting was not kept.",
    },
    hints=(
        "Group the table by rate and step. A group has one row for each seed.",
        "Of each group you need two numbers: mean plus half-width of `forgetting` (`intervals.mean_and_interval`), "
        "which decides whether it may be taken at all, and the mean of `validation_nll`, which decides between those.",
    ),
    alternatives=(of_a_table,),
)
