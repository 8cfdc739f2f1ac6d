"""When have two methods learned equally well?

The lesson left some comparisons undecided. That two methods are *equal* is another statement, and it needs a rule of
its own, written before a number is seen. You get the test accuracies of both, by seed, and a margin: differences
smaller than it do not matter to you. Runs of one seed saw the same examples in the same order, so they are compared in
pairs; a seed that only one of the two has is left out. The verdict on "both learn equally well" is

- `"seen here"` if the whole 95 % interval of the mean difference lies between minus the margin and the margin;
- `"the opposite seen here"` if all of it lies beyond one of the two;
- `"not decided here"` otherwise.

`intervals.mean_and_interval(differences)` gives the mean and the half-width, by Student's t.
"""

import math
from statistics import fmean, stdev

import pandas as pd
from scipy import stats

from course_utils import intervals
from course_utils.exercises.exercise import Exercise

WORDS = "seen here", "the opposite seen here", "not decided here"
Scores = dict[int, float]


def equally_good(ours: dict[int, float], theirs: dict[int, float], margin: float) -> str:
    """The verdict on "both learn equally well", from accuracies by seed."""
    mean, half = intervals.mean_and_interval([ours[seed] - theirs[seed] for seed in ours if seed in theirs])
    if abs(mean) + half < margin:
        return "seen here"
    if abs(mean) - half > margin:
        return "the opposite seen here"
    return "not decided here"


def cases() -> dict[str, tuple[Scores, Scores, float]]:
    def apart(*differences: float) -> tuple[Scores, Scores]:
        theirs = {seed: 0.5 + 0.01 * (seed % 2) for seed in range(len(differences))}
        return {seed: theirs[seed] + difference for seed, difference in enumerate(differences)}, theirs

    theirs = {0: 0.80, 1: 0.60, 2: 0.70}
    return {
        "seeds that differ, methods that do not": ({0: 0.801, 1: 0.60, 2: 0.699}, theirs, 0.05),
        "the same seeds in another order": ({2: 0.699, 0: 0.801, 1: 0.60}, theirs, 0.05),
        "a seed that only one of them has": ({0: 0.801, 1: 0.60, 2: 0.699, 3: 0.10}, theirs, 0.05),
        "better by 1 % in every seed": ({0: 0.811, 1: 0.61, 2: 0.709}, theirs, 0.05),
        "2 % better on average, but seeds far apart": (*apart(-0.06, 0.02, 0.10), 0.05),
        "clearly better, by less than the margin": (*apart(0.018, 0.020, 0.022), 0.05),
        "clearly better, by more than the margin": (*apart(0.10, 0.11, 0.12, 0.11), 0.05),
        "clearly worse, by more than the margin": (*apart(-0.10, -0.11, -0.12, -0.11), 0.05),
        "three seeds, near the margin": (*apart(0.01, 0.02, 0.03), 0.04),
        "nine seeds, near the margin": (*apart(0.0, 0.0, 0.01, 0.02, 0.02, 0.02, 0.03, 0.04, 0.04), 0.033),
    }


def _by(mean: float, half: float, margin: float) -> str:
    return WORDS[0] if abs(mean) + half < margin else WORDS[1] if abs(mean) - half > margin else WORDS[2]


def _differences(ours: Scores, theirs: Scores) -> list[float]:
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def means_alone(ours, theirs, margin):
    return _by(fmean(_differences(ours, theirs)), 0.0, margin)


def no_difference_seen(ours, theirs, margin):
    mean, half = intervals.mean_and_interval(_differences(ours, theirs))
    return WORDS[0] if abs(mean) <= half else WORDS[1]


def zero_decides_nothing(ours, theirs, margin):
    mean, half = intervals.mean_and_interval(_differences(ours, theirs))
    return WORDS[2] if abs(mean) <= half else WORDS[0] if abs(mean) < margin else WORDS[1]


def not_paired(ours, theirs, margin):
    seeds = ours.keys() & theirs.keys()
    low, high = stats.ttest_ind(
        *([scores[seed] for seed in seeds] for scores in (ours, theirs)), equal_var=False
    ).confidence_interval()
    return _by((low + high) / 2, (high - low) / 2, margin)


def in_the_order_given(ours, theirs, margin):
    pairs = zip(ours.values(), theirs.values(), strict=False)
    return _by(*intervals.mean_and_interval([a - b for a, b in pairs]), margin)


def only_not_worse(ours, theirs, margin):
    mean, half = intervals.mean_and_interval(_differences(ours, theirs))
    return WORDS[0] if mean - half > -margin else WORDS[1] if mean + half < -margin else WORDS[2]


def of_a_normal(ours, theirs, margin):
    found = _differences(ours, theirs)
    return _by(fmean(found), 1.96 * stdev(found) / math.sqrt(len(found)), margin)


def spread_of_seeds(ours, theirs, margin):
    found = _differences(ours, theirs)
    return _by(fmean(found), stdev(found), margin)


def by_tests(ours, theirs, margin):
    found = _differences(ours, theirs)
    above, below = (stats.ttest_1samp(found, at, alternative="greater").pvalue for at in (-margin, margin))
    if above < 0.025 and below > 0.975:
        return WORDS[0]
    return WORDS[1] if above > 0.975 or below < 0.025 else WORDS[2]


def by_tables(ours, theirs, margin):
    seeds = sorted(ours.keys() & theirs.keys())
    tables = [pd.DataFrame({"seed": seeds, "accuracy": [scores[n] for n in seeds]}) for scores in (ours, theirs)]
    mean, half = intervals.paired(*tables, "accuracy")
    if -margin < mean - half and mean + half < margin:
        return WORDS[0]
    return WORDS[1] if mean + half < -margin or mean - half > margin else WORDS[2]


EXERCISE = Exercise(
    answer=equally_good,
    kind="judge it",
    difficulty=2,
    minutes=10,
    cases=cases,
    mistakes={
        means_alone: "Wrong for {wrong} of {cases} inputs: the mean alone decides. With few seeds far apart it may "
        "lie on either side of the margin by chance.",
        no_difference_seen: "Wrong for {wrong} of {cases} inputs: the interval is held against 0. That it holds 0 "
        "says that no difference was seen, which few noisy seeds always bring about; equal is what lies within the "
        "margin.",
        zero_decides_nothing: "Wrong for {wrong} of {cases} inputs: an interval that holds 0 is left undecided. But a "
        "narrow one around 0 is what equal looks like.",
        not_paired: "Wrong for {wrong} of {cases} inputs: the seeds were not paired. What a seed does to both methods "
        "then widens the interval; take the differences first.",
        in_the_order_given: "Wrong for {wrong} of {cases} inputs: the scores were paired in the order they came in, "
        "not by their seed.",
        only_not_worse: "Wrong for {wrong} of {cases} inputs: only one end of the interval was looked at. That says "
        "that ours is not worse; equal has two ends.",
        of_a_normal: "Wrong for {wrong} of {cases} inputs: the interval is too narrow. With three seeds Student's t "
        "asks for 4.3 standard errors on each side; 1.96 are enough for many runs.",
        spread_of_seeds: "Wrong for {wrong} of {cases} inputs: the standard deviation says how far seeds lie apart, "
        "not how sure their mean is.",
    },
    hints=(
        "Draw minus the margin, the margin and an interval on a line. Where can the interval lie?",
        "First one difference for each seed that both have, then mean and half-width, then the two ends of the "
        "interval. Both ends have to be inside, or both beyond the same end.",
    ),
    alternatives=(by_tests, by_tables),
)
