"""Intervals are those of the tables, and no run, group or score gets lost on the way to one."""

from statistics import mean, stdev

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from course_utils import intervals

RUNS = pd.DataFrame({"lr": [1, 1, 1, 2, 2, 2], "score": [1.0, 2.0, 4.0, 3.0, 3.0, 3.0]})
NAN = float("nan")


@pytest.mark.parametrize(
    ("runs", "quantile"),  # two-sided 95 % column of a printed table of Student's t
    [(2, 12.706), (3, 4.303), (6, 2.571), (7, 2.447), (9, 2.306), (11, 2.228), (31, 2.042), (121, 1.980)],
)
def test_interval_is_students_for_any_number_of_runs(runs, quantile):
    values = np.random.default_rng(runs).normal(size=runs).tolist()
    center, half = intervals.mean_and_interval(values)
    assert center == pytest.approx(mean(values))
    assert half == pytest.approx(quantile * stdev(values) / runs**0.5, rel=3e-4)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_an_interval_needs_two_runs(values):
    with pytest.raises(ValueError, match=f"at least two runs, here is {len(values)}"):
        intervals.mean_and_interval(values)


@pytest.mark.parametrize("bad", [NAN, float("inf"), None, True, "0.5", pd.NA])
def test_a_value_that_is_no_number_is_named(bad):
    with pytest.raises(ValueError, match=f"row 1: {bad!r} is not a finite number"):
        intervals.mean_and_interval([0.5, bad, 0.7])


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),  # Newcombe (1998), Statistics in Medicine 17, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_share_has_wilsons_interval(hits, trials, low, high):
    assert intervals.share_and_interval(hits, trials) == pytest.approx((hits / trials, low, high), abs=5e-5)
    mirrored = intervals.share_and_interval(trials - hits, trials)
    assert mirrored == pytest.approx((1 - hits / trials, 1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_a_share_of_nothing_is_refused(hits, trials):
    with pytest.raises(ValueError, match=f"{hits} hits in {trials} trials"):
        intervals.share_and_interval(hits, trials)


def test_summary_has_a_row_for_each_value():
    found = intervals.summarize(RUNS, "lr", "score")
    assert found["lr"].tolist() == [1, 2]
    assert found["score"].tolist() == [pytest.approx(7 / 3), 3.0]
    assert found["score_half"].tolist() == [pytest.approx(intervals.mean_and_interval([1.0, 2.0, 4.0])[1]), 0.0]


def test_runs_without_a_value_are_a_group_of_their_own():
    found = intervals.summarize(RUNS.assign(lr=[1, 1, 1, NAN, NAN, NAN]), "lr", "score")
    assert found["lr"].fillna(-1).tolist() == [1, -1]
    assert found["score"].tolist() == [pytest.approx(7 / 3), 3.0]


def test_a_group_without_an_interval_is_named():
    with pytest.raises(ValueError, match="lr = 2, column 'score': .*at least two runs, here is 1"):
        intervals.summarize(RUNS[:4], "lr", "score")
    with pytest.raises(ValueError, match="lr = nan, column 'score': .*at least two runs, here is 1"):
        intervals.summarize(RUNS.assign(lr=[1, 1, 1, 2, 2, NAN]), "lr", "score")
    with pytest.raises(ValueError, match="lr = 2, column 'score': row 4: nan is not a finite number"):
        intervals.summarize(RUNS.assign(score=[1, 2, 4, 3, NAN, 3]), "lr", "score")


def test_a_table_that_cannot_be_summarized_says_why():
    with pytest.raises(ValueError, match="no rows to summarize"):
        intervals.summarize(RUNS[:0], "lr", "score")
    with pytest.raises(ValueError, match="No column rank, loss; the table has lr, score"):
        intervals.summarize(RUNS, "rank", "loss")


def test_clearly_less_and_plus_minus():
    low, high = intervals.summarize(RUNS.assign(score=[1, 1.1, 1.2, 5, 5.1, 5.2]), "lr", "score").iloc
    assert intervals.plus_minus(low, "score", 2) == "1.10 ± 0.25"
    assert intervals.clearly_less("score", low, high)
    assert not intervals.clearly_less("score", high, low)
    assert not intervals.clearly_less("score", low, low)


def test_intervals_that_overlap_decide_nothing():
    """Their means alone would."""
    low, high = pd.Series({"x": 1.0, "x_half": 0.6}), pd.Series({"x": 2.0, "x_half": 0.5})
    assert not intervals.clearly_less("x", low, high)
    assert not intervals.clearly_less("x", high, low)
    assert intervals.clearly_less("x", low, pd.Series({"x": 2.5, "x_half": 0.5}))


def test_paired_difference_is_scipys_and_pairs_by_seed_not_by_place():
    a = pd.DataFrame({"seed": [0, 1, 2], "loss": [1.0, 2.0, 3.5]})
    b = pd.DataFrame({"seed": [2, 0, 1], "loss": [3.0, 0.9, 1.6]})
    mean, half = intervals.paired(a, b, "loss")
    test = stats.ttest_rel([1.0, 2.0, 3.5], [0.9, 1.6, 3.0]).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((test.low, test.high))


@pytest.mark.parametrize("seeds", [[0, 1, 3], [0, 1], [0, 1, 1]])
def test_runs_without_a_partner_are_refused(seeds):
    a = pd.DataFrame({"seed": [0, 1, 2], "loss": 1.0})
    with pytest.raises(ValueError, match=r"loss: runs are paired by seed, and here are \[0, 1, 2\] and \["):
        intervals.paired(a, pd.DataFrame({"seed": seeds, "loss": 1.0}), "loss")
