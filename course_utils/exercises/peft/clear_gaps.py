"""Which gaps are still clear where there are many?

The lesson compared eight methods in 28 pairs, each with a 95 % interval. Were all methods equal, one or two of the 28
would look clear by luck alone. Write a stricter rule before you know whom it favors: the chance that *any* gap looks
clear by luck shall be at most 5 %. The simplest that keeps this is Bonferroni's. With m pairs of methods, each gets an
interval of level 1 - 0.05 / m instead of 0.95.

`scores` has the accuracies of each method, by seed. For each pair take the differences at the seeds that both have, and
the interval of their mean by Student's t: the mean ± t s / √n, with n differences, their standard deviation s, and t
the quantile for n - 1 degrees of freedom (`stats.t.ppf`). A gap is clear if its interval does not hold 0. Return the
clear ones as pairs of names, `(better, worse)`, in any order.

Then use it: `clear_gaps(stored_scores())`. The lesson called 12 gaps of the scoreboard clear. How many does the
stricter rule leave? (For 28 pairs t is 23.6 with three seeds; with nine it would be 4.6.) What is not clear is not
decided, which does not make those methods equal: so few seeds cannot bear so many comparisons.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from course_utils import studies
from course_utils.exercises.exercise import Exercise

Scores = dict[str, dict[int, float]]
Pairs = list[tuple[str, str]]


def stored_scores() -> dict[str, dict[int, float]]:
    """Test accuracies by seed in the stored study, each method at its best rate by validation loss."""
    runs, scores = studies.table("methods").query("steps > 0"), {}
    for method, rows in runs.groupby("variant", sort=False):
        best = rows.groupby("lr")["validation_nll"].mean().idxmin()
        scores[method] = rows[rows["lr"] == best].set_index("seed")["accuracy"].to_dict()
    return scores


def clear_gaps(scores: dict[str, dict[int, float]]) -> list[tuple[str, str]]:
    """The pairs (better, worse) that are clear by Bonferroni's rule, from accuracies by seed of each method."""
    pairs, clear = list(itertools.combinations(scores, 2)), []
    for one, other in pairs:
        gaps = np.array([scores[one][seed] - scores[other][seed] for seed in scores[one] if seed in scores[other]])
        t = stats.t.ppf(1 - 0.05 / len(pairs) / 2, df=len(gaps) - 1)
        if abs(gaps.mean()) > t * gaps.std(ddof=1) / math.sqrt(len(gaps)):
            clear.append((one, other) if gaps.mean() > 0 else (other, one))
    return clear


def cases() -> dict[str, tuple[Scores]]:
    hard = np.array([0.0, 0.1, -0.05, 0.15, 0.02])  # what each seed does to all methods
    noise = np.array([0.01, -0.02, 0.015, -0.01, 0.005])  # of mean 0, what it does to a gap
    error = noise.std(ddof=1) / math.sqrt(len(noise))

    def four(errors: float) -> Scores:
        """Two methods that lie so many standard errors apart, and two far below them."""
        rows = {"A": 0.7 + hard, "B": 0.7 + hard - noise - errors * error}
        rows |= {"C": 0.4 + hard + noise[::-1] / 9, "D": 0.2 + hard - noise[::-1] / 9}
        return {method: dict(enumerate(row.tolist())) for method, row in rows.items()}

    def pair(errors: float) -> Scores:
        """Two methods and three seeds, so many standard errors apart."""
        rows = {"A": 0.5 + hard[:3], "B": 0.5 + hard[:3] + 0.01 * (np.array([1, -1, 0]) + errors / math.sqrt(3))}
        return {method: dict(enumerate(row.tolist())) for method, row in rows.items()}

    two = {"A": {0: 0.50, 1: 0.70, 2: 0.60}, "B": {0: 0.54, 1: 0.75, 2: 0.65}}
    return {
        **{
            f"four methods, two of them {n} standard errors apart": (four(n),)
            for n in (0.5, 2.7, 3.2, 4.0, 4.4, 5.5, 8.0, 12.0)
        },
        "two methods, three seeds": (two,),
        **{f"two methods, three seeds, {n} standard errors apart": (pair(n),) for n in (3.3, 3.9, 5.0)},
        "the seeds in another order": ({"A": two["A"], "B": dict(reversed(two["B"].items()))},),
        "a seed that only one of them has": ({**pair(3.3), "A": {**pair(3.3)["A"], 3: 0.90}},),
    }


def outcome(answer: Callable[[Scores], Pairs], scores: Scores) -> dict[str, str]:
    """What is said of each pair of methods.

    Raises:
        ValueError: what is returned are no pairs of these methods, or a pair is there in both orders.
    """
    said, every = answer(scores), list(itertools.combinations(scores, 2))
    pairs = isinstance(said, (list, tuple, set)) and all(isinstance(pair, (list, tuple)) for pair in said)
    found = [tuple(pair) for pair in said] if pairs else []
    unknown = {*map(frozenset, found)} - {*map(frozenset, every)}
    if not pairs or unknown or len({frozenset(pair) for pair in found}) < len(found):
        raise ValueError(f"Return a list of pairs (better, worse) of the names {', '.join(scores)}, each pair once.")
    return {
        f"{a} and {b}": f"{a} is better" if (a, b) in found else f"{b} is better" if (b, a) in found else "not clear"
        for a, b in every
    }


def _clear(scores: Scores, level: float, quantile: Callable[[float, int], float] = stats.t.ppf) -> Pairs:
    """All pairs whose interval of that level does not hold 0."""
    clear = []
    for one, other in itertools.permutations(scores, 2):
        gaps = np.array([scores[one][seed] - scores[other][seed] for seed in sorted({*scores[one]} & {*scores[other]})])
        half = quantile((1 + level) / 2, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
        if gaps.mean() > half:
            clear.append((one, other))
    return clear


def _pairs(scores: Scores) -> int:
    return math.comb(len(scores), 2)


def each_at_95(scores):
    return _clear(scores, 0.95)


def of_methods(scores):
    return _clear(scores, 1 - 0.05 / len(scores))


def of_28_pairs(scores):
    return _clear(scores, 1 - 0.05 / 28)


def pairs_counted_twice(scores):
    return _clear(scores, 1 - 0.05 / _pairs(scores) / 2)


def not_of_the_mean(scores):
    return _clear(scores, 1 - 0.05 / _pairs(scores), lambda q, df: stats.t.ppf(q, df) * math.sqrt(df + 1))


def one_side(scores):
    return _clear(scores, 1 - 2 * 0.05 / _pairs(scores))


def of_a_normal(scores):
    return _clear(scores, 1 - 0.05 / _pairs(scores), lambda q, df: stats.norm.ppf(q))


def ddof_of_0(scores):
    return _clear(scores, 1 - 0.05 / _pairs(scores), lambda q, df: stats.t.ppf(q, df) * math.sqrt(df / (df + 1)))


def df_of_n(scores):
    return _clear(scores, 1 - 0.05 / _pairs(scores), lambda q, df: stats.t.ppf(q, df + 1))


def means_alone(scores):
    return _clear(scores, 0.0)


def not_paired(scores):
    clear = []
    for one, other in itertools.permutations(scores, 2):
        test = stats.ttest_ind([*scores[one].values()], [*scores[other].values()], equal_var=False)
        if test.statistic > 0 and test.pvalue < 0.05 / _pairs(scores):
            clear.append((one, other))
    return clear


def in_the_order_given(scores):
    return clear_gaps({method: dict(enumerate(row.values())) for method, row in scores.items()})


def worse_first(scores):
    return [(worse, better) for better, worse in clear_gaps(scores)]


def against_the_best(scores):
    best = max(scores, key=lambda method: np.mean([*scores[method].values()]))
    return [pair for pair in clear_gaps(scores) if pair[0] == best]


def by_tests(scores):
    clear = []
    for one, other in itertools.permutations(scores, 2):
        seeds = [seed for seed in scores[one] if seed in scores[other]]
        rows = [[scores[method][seed] for seed in seeds] for method in (one, other)]
        if stats.ttest_rel(*rows, alternative="greater").pvalue < 0.025 / _pairs(scores):
            clear.append((one, other))
    return clear


EXERCISE = Exercise(
    answer=clear_gaps,
    kind="judge it",
    difficulty=3,
    minutes=15,
    cases=cases,
    outcome=outcome,
    given=(stored_scores,),
    mistakes={
        each_at_95: "Wrong for {wrong} of {cases} inputs: gaps were judged at 95 %: all of them, as if each were "
        "the only one, or the last of a rule that goes step by step (Holm's). Asked for is one level for all. At 95 "
        "%, a fifth of all tables of four equal methods would have a clear gap.",
        of_methods: "Wrong for {wrong} of {cases} inputs: 0.05 was divided by the number of methods. What can look "
        "clear by luck are pairs: four methods make six.",
        of_28_pairs: "Wrong for {wrong} of {cases} inputs: m was 28, or another fixed number. Count the pairs of the "
        "`scores` that you were given: four methods make six.",
        pairs_counted_twice: "Wrong for {wrong} of {cases} inputs: m was twice too large, or 0.05 was halved twice. A "
        "with B and B with A are one pair: four methods make six.",
        not_of_the_mean: "Wrong for {wrong} of {cases} inputs: that is the interval of a single difference. Their mean "
        "is surer by the root of n.",
        one_side: "Wrong for {wrong} of {cases} inputs: the quantile leaves 0.05 / m on each side. An interval has two "
        "ends, and luck can favor either: half of it belongs to each.",
        of_a_normal: "Wrong for {wrong} of {cases} inputs: the quantile is that of a normal distribution, which knows "
        "the spread. Here it is estimated from a few seeds, and Student's t pays for that.",
        ddof_of_0: "Wrong for {wrong} of {cases} inputs: the standard deviation is numpy's default, which divides by "
        "n. Student's t wants n - 1: `ddof=1`.",
        df_of_n: "Wrong for {wrong} of {cases} inputs: n differences leave n - 1 degrees of freedom, since their mean "
        "is estimated, too.",
        means_alone: "Wrong for {wrong} of {cases} inputs: the better mean alone decides, however far the seeds lie "
        "apart.",
        not_paired: "Wrong for {wrong} of {cases} inputs: the seeds were not paired. What a seed does to all methods "
        "then hides the gaps; take the differences first.",
        in_the_order_given: "Wrong for {wrong} of {cases} inputs: scores were paired in the order they came in, not by "
        "their seed.",
        worse_first: "Wrong for {wrong} of {cases} inputs: the pairs are the right ones, but the worse stands first.",
        against_the_best: "Wrong for {wrong} of {cases} inputs: only the gaps to the best method are there. Two "
        "further down can be clearly apart as well.",
    },
    hints=(
        "`itertools.combinations(scores, 2)` gives the pairs; their number is m. One pair after the other: "
        "differences by seed, their mean, their standard deviation (`ddof=1`).",
        "An interval of level 1 - a leaves a / 2 beyond each end, so t is the quantile at 1 - a / 2, a = 0.05 / m. "
        "The gap is clear if the size of its mean is more than t s / √n, and the sign says who is better.",
    ),
    alternatives=(by_tests,),
)
