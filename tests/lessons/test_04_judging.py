"""What the deeper half of notebook 04 defines, taken out of it and held against evalica and brute force."""

import math
import random

import evalica
import numpy as np
import pandas as pd
import pytest

from course_utils import lessons, tournament

half = lessons.definitions("04_judging")
WINNERS = {"first": evalica.Winner.X, "second": evalica.Winner.Y, "tie": evalica.Winner.Draw}


def made(count: int, models: str, seed: int) -> pd.DataFrame:
    chance = random.Random(seed)
    rows = [(*chance.sample(models, 2), chance.choice(list(WINNERS))) for _ in range(count)]
    return pd.DataFrame(rows, columns=["first", "second", "winner"])


def theirs(rate, matches: pd.DataFrame, **options) -> pd.Series:
    winners = [WINNERS[winner] for winner in matches["winner"]]
    return rate(list(matches["first"]), list(matches["second"]), winners, **options).scores


@pytest.mark.parametrize("seed", range(3))
def test_elo_by_hand_equals_evalica_in_the_same_order(seed):
    matches = made(60, "abcd", seed)
    found = half.play(list(matches.itertuples(index=False, name=None)), k=32)
    expected = theirs(evalica.elo, matches, k=32)
    assert found == pytest.approx(expected[list(found)].to_dict(), abs=1e-6)
    assert sum(found.values()) == pytest.approx(1000 * len(found))


@pytest.mark.parametrize("seed", range(3))
def test_bradley_terry_by_hand_equals_evalica(seed):
    matches = made(120, "abcd", seed)
    found = half.bradley_terry(matches)
    strengths = np.log10(theirs(evalica.bradley_terry, matches, tolerance=1e-12, limit=10_000)[found.index]) * 400
    assert found.to_numpy() == pytest.approx((strengths - strengths.mean() + 1000).to_numpy(), abs=0.05)


def test_as_many_verdicts_are_dropped_as_one_by_one():
    matches = made(200, "abc", seed=1)
    ranked = list(tournament.bradley_terry(matches).sort_values(ascending=False).index)
    better, worse = ranked[:2]
    found = half.dropped(matches, better, worse)
    wins = [
        row.Index
        for row in matches.itertuples()
        if (row.first, row.winner) == (better, "first") or (row.second, row.winner) == (better, "second")
    ]
    against = [place for place in wins if worse in set(matches.loc[place, ["first", "second"]])]
    order, count = [*against, *(place for place in wins if place not in against)], 0
    while True:
        rated = tournament.bradley_terry(matches.drop(order[:count]))
        if rated[better] < rated[worse]:
            break
        count += 1
    assert found == count > 0


@pytest.mark.parametrize("true", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("hit", "false_alarm"), [(1.0, 0.0), (0.8, 0.2), (0.7, 0.4)])
def test_a_corrected_rate_is_the_true_one(true, hit, false_alarm):
    seen = true * hit + (1 - true) * false_alarm
    assert half.corrected(seen, hit, false_alarm) == pytest.approx(true)


def test_a_judge_that_knows_nothing_corrects_nothing():
    assert math.isnan(half.corrected(0.5, 0.5, 0.5))


def test_halfwidths_are_those_of_percentiles():
    drawn = pd.DataFrame({"a": np.arange(1001.0), "b": 0.0})
    assert half.halfwidth(drawn).to_dict() == {"a": pytest.approx(475), "b": 0}


def test_points_are_those_of_the_own_matches_in_both_orders():
    rows = [
        ("1", "a", "b", "first"),  # a wins
        ("1", "b", "a", "tie"),
        ("2", "b", "a", "first"),  # b wins
        ("3", "b", "a", "second"),  # a wins
        ("3", "a", "c", "second"),  # another pair
    ]
    matches = pd.DataFrame(rows, columns=["prompt", "first", "second", "winner"])
    assert half.points(matches, "a", "b").to_dict() == {"1": 0.75, "2": 0.0, "3": 1.0}
    assert half.points(matches, "b", "a").to_dict() == {"1": 0.25, "2": 1.0, "3": 0.0}


def test_the_longer_answer_wins_wherever_it_stands():
    lengths = {("1", "a"): 9, ("1", "b"): 5, ("1", "c"): 9, ("2", "a"): 1, ("2", "b"): 2, ("3", "a"): 4, ("3", "b"): 4}
    rows = [
        ("1", "a", "b", "first"),  # the longer one wins
        ("1", "b", "a", "second"),  # the same, seen from the other side
        ("1", "b", "c", "first"),  # the shorter one wins
        ("1", "a", "c", "first"),  # no longer one
        ("1", "b", "c", "tie"),
        ("2", "a", "b", "first"),  # the shorter one wins
        ("3", "a", "b", "first"),
    ]
    matches = pd.DataFrame(rows, columns=["prompt", "first", "second", "winner"])
    assert half.longer_wins(matches, lengths).to_dict() == pytest.approx({"1": 2 / 3, "2": 0.0})


def test_at_one_length_a_judge_sees_as_much_of_both():
    seen = []
    judge = half.at_one_length(lambda *shown: seen.append(shown) or "tie")
    assert judge("q", "abc", "defgh") == "tie"
    assert judge("q", "defgh", "") == "tie"
    assert seen == [("q", "abc", "def"), ("q", "", "")]


def test_a_pair_is_decided_if_its_interval_leaves_one_half_out():
    found = [half.side(mean, around) for mean, around in ((0.7, 0.1), (0.3, 0.1), (0.55, 0.1), (0.45, 0.05))]
    assert found == [True, False, None, None]
