"""When is a small rank good enough?

The lesson said "competitive" of r = 1 if its mean accuracy was at most 5 % below that of r = 64, and looked at no
interval. Write a stricter rule, before you see a number. You get the differences *large rank minus small rank*, one for
each seed, and the margin: how much the small one may lose. The verdict is

- `"seen here"` if the whole 95 % interval of the mean difference lies below the margin;
- `"the opposite seen here"` if it lies wholly above the margin;
- `"not decided here"` otherwise.

`intervals.mean_and_interval(differences)` gives mean and half-width, by Student's t. Mind that *no difference was seen*
is another statement than *the difference is small*.
"""

import math
from statistics import fmean, stdev

from scipy import stats

from course_utils import intervals
from course_utils.exercises.exercise import Exercise

WORDS = "seen here", "the opposite seen here", "not decided here"


def competitive(differences: list[float], margin: float) -> str:
    """The verdict on "the small rank loses less than `margin`"; differences are large minus small, one a seed."""
    mean, half = intervals.mean_and_interval(differences)
    if mean + half < margin:
        return "seen here"
    if mean - half > margin:
        return "the opposite seen here"
    return "not decided here"


def cases() -> dict[str, tuple[list[float], float]]:
    return {
        "no seed loses anything": ([0.0, 0.001, -0.001, 0.0], 0.05),
        "a mean of 2 %, but seeds far apart": ([-0.06, 0.02, 0.10], 0.05),
        "a mean of 8 %, but seeds far apart": ([0.00, 0.08, 0.16], 0.05),
        "clearly behind, by less than the margin": ([0.018, 0.020, 0.022], 0.05),
        "clearly behind, by more than the margin": ([0.10, 0.11, 0.12, 0.11], 0.05),
        "better, and clearly so": ([-0.11, -0.10, -0.12], 0.05),
        "three seeds, near the margin": ([0.01, 0.02, 0.03], 0.04),
        "nine seeds, near the margin": ([0.0, 0.0, 0.01, 0.02, 0.02, 0.02, 0.03, 0.04, 0.04], 0.033),
    }


def _by(mean: float, half: float, margin: float) -> str:
    return WORDS[0] if mean + half < margin else WORDS[1] if mean - half > margin else WORDS[2]


def means_alone(differences, margin):
    return _by(fmean(differences), 0.0, margin)


def no_difference_seen(differences, margin):
    mean, half = intervals.mean_and_interval(differences)
    return WORDS[0] if abs(mean) <= half else WORDS[1] if mean > half else WORDS[2]


def other_ends(differences, margin):
    mean, half = intervals.mean_and_interval(differences)
    return _by(mean, -half, margin)


def margin_forgotten(differences, margin):
    return competitive(differences, 0.0)


def subtracted_the_other_way(differences, margin):
    return competitive([-each for each in differences], margin)


def of_a_normal(differences, margin):
    return _by(fmean(differences), 1.96 * stdev(differences) / math.sqrt(len(differences)), margin)


def spread_of_seeds(differences, margin):
    return _by(fmean(differences), stdev(differences), margin)


def by_tests(differences, margin):
    less = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return WORDS[0] if less < 0.025 else WORDS[1] if less > 0.975 else WORDS[2]


EXERCISE = Exercise(
    answer=competitive,
    kind="judge it",
    difficulty=2,
    minutes=8,
    cases=cases,
    mistakes={
        means_alone: "Wrong for {wrong} of {cases} inputs: the mean alone decides. With few seeds far apart it may "
        "lie on either side of the margin by chance.",
        no_difference_seen: "Wrong for {wrong} of {cases} inputs: the interval is compared with 0. That it holds 0 "
        "only says that no difference was seen, which three noisy seeds always bring about.",
        other_ends: "Wrong for {wrong} of {cases} inputs: the other end of the interval decides. For all of it to lie "
        "below the margin, its upper end has to.",
        margin_forgotten: "Wrong for {wrong} of {cases} inputs: the interval is compared with 0, so the small rank "
        "has to be better. It may lose up to the margin.",
        subtracted_the_other_way: "Wrong for {wrong} of {cases} inputs: the sign is turned around. A positive "
        "difference says that the large rank was better.",
        of_a_normal: "Wrong for {wrong} of {cases} inputs: 1.96 standard errors are an interval for many runs. With "
        "three seeds Student's t asks for 4.3.",
        spread_of_seeds: "Wrong for {wrong} of {cases} inputs: the standard deviation says how far seeds lie apart, "
        "not how sure their mean is.",
    },
    hints=(
        "Draw the interval and the margin on a line. There are three places where the interval can lie.",
        "Its ends are mean + half and mean - half. Which of the two has to be below the margin, so that all of it is?",
    ),
    alternatives=(by_tests,),
)
