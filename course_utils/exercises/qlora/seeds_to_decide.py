"""How many seeds would have decided it?

The lesson compared two ways of training by the difference of their losses, seed by seed, and a margin. A 95 % interval
inside plus or minus the margin: *equal*. Its upper end below the margin: *not worse*. Its lower end above the margin:
*worse*. Anything else: *not decided*. That rule comes before the numbers, and so should the number of seeds.

You get the differences of a few seeds, and the margin. Assume that more seeds leave the mean and the standard
deviation as they are. How many seeds does it take until the rule says another word than *not decided*? Return the
smallest such number, counted from the seeds that there are, or `math.inf` if 100 seeds are not enough.
(`stats.t.ppf(0.975, n - 1)` is Student's t for n seeds.) Before you run anything: which takes more seeds, a mean of
zero, or a mean near the margin?

It is a forecast: new seeds move the mean. And it is to be made once. To look after each new seed, and to stop when the
word is welcome, is another rule, and a worse one: given enough looks, chance decides.
"""

import math
from statistics import fmean, pstdev, stdev

import numpy as np
from scipy import stats

from course_utils.exercises.exercise import Exercise

MOST = 100


def seeds_to_decide(differences: list[float], margin: float) -> float:
    """With how many seeds the rule says something else than "not decided", if mean and spread stay as they are."""
    mean, spread = fmean(differences), stdev(differences)
    for n in range(len(differences), 101):
        half = stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n)
        if mean + half < margin or mean - half > margin:
            return n
    return math.inf


def cases() -> dict[str, tuple[list[float], float]]:
    return {
        "three seeds, a mean of half the margin": ([-0.005, 0.010, 0.025], 0.02),
        "four seeds, far below the margin": ([-0.06, -0.04, -0.02, 0.0], 0.02),
        "four seeds, above the margin": ([0.01, 0.03, 0.05, 0.07], 0.02),
        "a mean on the margin": ([0.01, 0.02, 0.03], 0.02),
        "nine seeds around zero": ([-0.02, -0.01, -0.01, 0.0, 0.0, 0.0, 0.01, 0.01, 0.02], 0.02),
        "three seeds near the margin": ([0.010, 0.014, 0.018], 0.02),
        "decided by the last seed that may be": ([-0.03, 0.0, 0.03], _decided_at(MOST, 0.03)),
        "one seed too many": ([-0.03, 0.0, 0.03], _decided_at(MOST + 1, 0.03)),
    }


def _decided_at(n: int, spread: float) -> float:
    """A margin that a mean of 0 is inside of with n seeds, and not with one less."""
    half, before = (stats.t.ppf(0.975, seeds - 1) * spread / math.sqrt(seeds) for seeds in (n, n - 1))
    return (half + before) / 2


def _first(differences, decides, quantile=None, spread=stdev, start=None, root=math.sqrt, most=MOST) -> float:
    """The first n for which `decides(mean, half)`; what differs in a mistake is another argument."""
    quantile = quantile or (lambda n: stats.t.ppf(0.975, n - 1))
    for n in range(start or len(differences), most + 1):
        if decides(fmean(differences), quantile(n) * spread(differences) / root(n)):
            return n
    return math.inf


def equal_or_worse(differences, margin):
    return _first(differences, lambda mean, half: abs(mean) + half < margin or mean - half > margin)


def not_worse_alone(differences, margin):
    return _first(differences, lambda mean, half: mean + half < margin)


def against_zero(differences, margin):
    return _first(differences, lambda mean, half: abs(mean) > half)


def inside_alone(differences, margin):
    return _first(differences, lambda mean, half: abs(mean) + half < margin)


def of_a_normal(differences, margin):
    return _first(differences, lambda mean, half: abs(mean - margin) > half, lambda n: 1.96)


def quantile_of_now(differences, margin):
    now = stats.t.ppf(0.975, len(differences) - 1)
    return _first(differences, lambda mean, half: abs(mean - margin) > half, lambda n: now)


def degrees_of_n(differences, margin):
    return _first(differences, lambda mean, half: abs(mean - margin) > half, lambda n: stats.t.ppf(0.975, n))


def one_sided(differences, margin):
    return _first(differences, lambda mean, half: abs(mean - margin) > half, lambda n: stats.t.ppf(0.95, n - 1))


def spread_of_these_alone(differences, margin):
    return _first(differences, lambda mean, half: abs(mean - margin) > half, spread=pstdev)


def without_the_root(differences, margin):
    return _first(differences, lambda mean, half: abs(mean - margin) > half, root=float)


def not_of_the_mean(differences, margin):
    return _first(differences, lambda mean, half: abs(mean - margin) > half, root=lambda n: 1)


def from_two_on(differences, margin):
    return _first(differences, lambda mean, half: abs(mean - margin) > half, start=2)


def one_less_tried(differences, margin):
    found = seeds_to_decide(differences, margin)
    return found if found < MOST else math.inf


def one_more_tried(differences, margin):
    return _first(differences, lambda mean, half: abs(mean - margin) > half, most=1000)


def how_many_more(differences, margin):
    return seeds_to_decide(differences, margin) - len(differences)


def none_for_never(differences, margin):
    found = seeds_to_decide(differences, margin)
    return None if found == math.inf else found


def most_for_never(differences, margin):
    return min(seeds_to_decide(differences, margin), MOST)


def all_at_once(differences, margin):
    n = np.arange(len(differences), MOST + 1)
    half = stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / np.sqrt(n)
    decided = n[abs(np.mean(differences) - margin) > half]
    return int(decided[0]) if len(decided) else math.inf


EXERCISE = Exercise(
    answer=seeds_to_decide,
    kind="judge it",
    difficulty=2,
    minutes=12,
    cases=cases,
    mistakes={
        equal_or_worse: "Wrong for {wrong} of {cases} studies: *not worse* is a decision, too, and it needs only the "
        "upper end.",
        not_worse_alone: "Wrong for {wrong} of {cases} studies: *worse* is a decision, too, if an unwelcome one.",
        against_zero: "Wrong for {wrong} of {cases} studies: the interval is held against 0. The rule holds it against "
        "the margin, and a mean of 0 lies well inside.",
        inside_alone: "Wrong for {wrong} of {cases} studies: *equal* is one decision of three. *Not worse* and "
        "*worse* are the others.",
        of_a_normal: "{yours:g} seeds instead of {expected:g}: 1.96 is for many seeds. With few of them Student's t "
        "asks for more.",
        quantile_of_now: "{yours:g} seeds instead of {expected:g}: with more seeds not only the root of n grows; "
        "Student's t shrinks as well. Take it anew for each n.",
        degrees_of_n: "{yours:g} seeds instead of {expected:g}: n seeds leave n - 1 degrees of freedom.",
        one_sided: "{yours:g} seeds instead of {expected:g}: that is the quantile of a 90 % interval. 95 % leave 2.5 % "
        "beyond each end.",
        spread_of_these_alone: "{yours:g} seeds instead of {expected:g}: that standard deviation divides by n. Of a "
        "sample it divides by n - 1 (`stdev`).",
        without_the_root: "{yours:g} seeds instead of {expected:g}: the half-width shrinks with the root of n, not "
        "with n.",
        not_of_the_mean: "{yours:g} seeds instead of {expected:g}: your half-width is that of single seeds. The mean "
        "of n of them is surer by the root of n.",
        from_two_on: "Wrong for {wrong} of {cases} studies: {yours:g} seeds are fewer than there are. What is decided "
        "already needs no more, but also no less.",
        none_for_never: "Wrong for {wrong} of {cases} studies: None comes back where 100 seeds are not enough, which "
        "is no number. Behind the loop, return `math.inf`.",
        most_for_never: "Wrong for {wrong} of {cases} studies: {yours:g} seeds were tried last and are not enough. "
        "Where none of them are, the answer is `math.inf`.",
        one_less_tried: "{yours:g} seeds instead of {expected:g}: 100 seeds may be tried, no fewer and no more. "
        "`range` stops before its end.",
        one_more_tried: "{yours:g} seeds instead of {expected:g}: that is more than 100. Where 100 are not enough, the "
        "answer is `math.inf`.",
        how_many_more: "{yours:g} instead of {expected:g}: that is how many more. Asked for are all of them.",
    },
    hints=(
        "Where does an interval lie about which the rule says *not decided*? Draw the margin, and one interval for "
        "each word.",
        "It is decided as soon as the margin is outside of the interval, on whichever side. So count n up, and compare "
        "the half-width t * s / sqrt(n) with the distance of the mean from the margin.",
    ),
    alternatives=(all_at_once,),
)
