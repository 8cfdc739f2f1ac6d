"""Verdicts and ratings: against published facts, evalica, an optimizer, and all orders written out."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter

import evalica
import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from course_utils import datafiles, tournament
from course_utils.core.files import ROOT
from course_utils.core.rows import DataError
from course_utils.tournament import ratings

PUBLISHED = tournament.published()
PARSED = PUBLISHED[PUBLISHED["winner"] != "unparsed"]
PAPER = {  # QLoRA (arXiv 2305.14314), Table 1
    "GPT-4": 1348,
    "Guanaco-65B": 1022,
    "Guanaco-33B": 992,
    "Vicuna-13B": 974,
    "ChatGPT-3.5": 966,
    "Guanaco-13B": 916,
    "Bard": 902,
    "Guanaco-7B": 879,
}
WINNERS = {"first": evalica.Winner.X, "second": evalica.Winner.Y, "tie": evalica.Winner.Draw}


def made(count: int = 300, models: str = "abcde", seed: int = 0) -> pd.DataFrame:
    """A random tournament, in which models that come later are a little stronger."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        first, second = rng.choice(len(models), 2, replace=False)
        winner = rng.choice(["first", "second", "tie"], p=np.array([3 + first, 3 + second, 2]) / (8 + first + second))
        rows.append((str(number % 20), models[first], models[second], winner))
    return pd.DataFrame(rows, columns=["prompt", "first", "second", "winner"])


def theirs(function, matches: pd.DataFrame, **options) -> pd.Series:
    """The scores of evalica's function."""
    winners = [WINNERS[winner] for winner in matches["winner"]]
    return function(list(matches["first"]), list(matches["second"]), winners, **options).scores


def test_published_verdicts_are_those_that_were_released():
    assert dict(Counter(PUBLISHED["winner"])) == {"first": 2512, "second": 1355, "tie": 600, "unparsed": 13}
    assert (len(PUBLISHED), len(PARSED)) == (4480, 4467)
    pairs = PUBLISHED.groupby(["first", "second"]).size()
    assert (len(pairs), pairs.unique().tolist()) == (8 * 7, [80])
    first, second = (round(100 * (PARSED["winner"] == place).mean()) for place in ("first", "second"))
    assert (first, second) == (56, 30), "position bias"


def test_both_orders_say_who_won_by_name():
    orders = tournament.both_orders(PUBLISHED)
    assert len(orders) == 28 * 80
    parsed = orders[(orders[["a_first", "b_first"]] != "unparsed").all(axis=1)]
    assert 100 * (parsed["a_first"] != parsed["b_first"]).mean() == pytest.approx(38.6, abs=0.05)
    won = Counter(parsed["a_first"]) + Counter(parsed["b_first"])
    same = parsed[parsed["a_first"] == parsed["b_first"]]
    counts = datafiles.load_figures("guanaco_gpt4_verdicts")
    agreed = counts[counts["winner_when_a_shown_first"] == counts["winner_when_b_shown_first"]]
    assert len(same) == agreed["prompts"].sum()
    assert won["GPT-4"] > won["Guanaco-65B"] > won["Guanaco-7B"]


def test_swapped_sides_name_the_same_winner():
    rows = [("1", "x", "y", "first"), ("1", "y", "x", "second"), ("2", "y", "x", "tie"), ("2", "x", "y", "second")]
    found = tournament.both_orders(pd.DataFrame(rows, columns=["prompt", "first", "second", "winner"]))
    assert found.to_numpy().tolist() == [["1", "x", "y", "x", "x"], ["2", "x", "y", "y", "tie"]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("1", "x", "y", "first")], "Prompt 1, x against y: judged in one order only"),
        ([("1", "x", "y", "first"), ("1", "x", "y", "tie")], "Prompt 1, x against y: there are two verdicts"),
    ],
)
def test_a_match_without_both_orders_is_named(rows, words):
    with pytest.raises(ValueError, match=words):
        tournament.both_orders(pd.DataFrame(rows, columns=["prompt", "first", "second", "winner"]))


def test_the_paper_s_ratings_are_those_of_k_4_not_of_the_32_that_it_states():
    """All eight within a point with K = 4; with K = 32 GPT-4 is 27 points too high."""
    by_k = {k: tournament.elo(PARSED, k=k).mean() for k in (4, 32)}
    assert max(abs(by_k[4][model] - rating) for model, rating in PAPER.items()) < 1
    assert by_k[32]["GPT-4"] - PAPER["GPT-4"] == pytest.approx(27, abs=1)


def test_more_orders_narrow_the_chance_of_order_alone():
    """What the paper calls ± 1 is 1.96 standard errors over 10,000 orders; no prompt is drawn again for it."""
    spread = tournament.elo(PARSED, orderings=1000).std()
    assert spread.between(7, 15).all()
    assert (1.96 * spread / 10_000**0.5 < 0.3).all()


def test_every_order_is_as_likely_and_is_played_by_elo_s_rule():
    """Five matches have 120 orders: evalica rates each, and every one of ours is one of theirs, equally often."""
    matches = made(5, "abc", seed=3)
    orders = itertools.permutations(range(len(matches)))
    found = tournament.elo(matches, k=32, orderings=12_000, seed=1)
    expected = [theirs(evalica.elo, matches.iloc[list(order)], k=32)[found.columns] for order in orders]
    possible, chances = np.unique(np.round(expected, 6), axis=0, return_counts=True)
    apart = abs(found.to_numpy()[:, None] - possible).max(axis=2)
    assert apart.min(axis=1).max() < 0.001
    observed = np.bincount(apart.argmin(axis=1), minlength=len(possible))
    assert len(possible) > 30
    assert stats.chisquare(observed, chances * 100).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_elo_equals_evalica_in_a_long_order(seed):
    matches = made(400, "abcdefg", seed)
    models, first, second, score = ratings._parsed(matches)
    kinds, kind_of = np.unique(np.stack([first, second, 2 * score], axis=1).astype(int), axis=0, return_inverse=True)
    ours = ratings._played(kind_of.reshape(-1, 1), kinds, len(models), 16)[0] + 1000
    assert ours == pytest.approx(theirs(evalica.elo, matches, k=16)[models].to_numpy(), abs=0.01)


def test_elo_s_result_depends_on_the_seed_alone(monkeypatch):
    matches = made()
    first, again = (tournament.elo(matches, orderings=300, seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert (first.sum(axis=1).round(1) == 5000).all(), "what one gains another loses"
    assert not first.equals(tournament.elo(matches, orderings=300, seed=2))
    monkeypatch.setattr(ratings, "BLOCK", 100)
    several = tournament.elo(matches, orderings=250)
    assert len(several) == 250
    assert not several.iloc[:100].reset_index(drop=True).equals(several.iloc[100:200].reset_index(drop=True))


def test_all_orders_at_once_take_a_fraction_of_one_after_the_other():
    """The budget is a second for 10,000 orders of all verdicts on two idle cores; here, a ratio, which load leaves."""
    start = time.process_time()
    tournament.elo(PARSED, orderings=2000)
    ours = (time.process_time() - start) / 2000
    rows = list(zip(PARSED["first"], PARSED["second"], PARSED["winner"].map(ratings.SCORES), strict=True))
    start, found = time.process_time(), dict.fromkeys(PAPER, 1000.0)
    for first, second, score in rows:
        gained = 4 * (score - 1 / (1 + 10 ** ((found[second] - found[first]) / 400)))
        found[first], found[second] = found[first] + gained, found[second] - gained
    assert ours < (time.process_time() - start) / 5


@pytest.mark.parametrize("seed", range(3))
def test_bradley_terry_is_the_likeliest(seed):
    """Against scipy's optimizer on the likelihood written out, and against evalica."""
    matches = made(seed=seed)
    found = tournament.bradley_terry(matches)
    places = {model: place for place, model in enumerate(found.index)}
    first, second = (matches[side].map(places).to_numpy() for side in ("first", "second"))
    score = matches["winner"].map(ratings.SCORES).to_numpy()

    def unlikely(theta: np.ndarray) -> float:
        apart = theta[first] - theta[second]
        return np.sum(score * np.logaddexp(0, -apart) + (1 - score) * np.logaddexp(0, apart)) + theta.mean() ** 2

    best = optimize.minimize(unlikely, np.zeros(len(found)), tol=1e-9).x * 400 / np.log(10)
    assert found.to_numpy() == pytest.approx(best - best.mean() + 1000, abs=0.05)
    strengths = np.log10(theirs(evalica.bradley_terry, matches, tolerance=1e-12, limit=10_000)[found.index]) * 400
    assert found.to_numpy() == pytest.approx((strengths - strengths.mean() + 1000).to_numpy(), abs=0.05)


def test_published_ratings_are_the_recorded_ones():
    recorded = datafiles.load_figures("guanaco_prompt_bootstrap").set_index("model")["bradley_terry"]
    found = tournament.bradley_terry(PARSED)
    assert found.round().astype(int).to_dict() == recorded.to_dict()


def test_prompts_drawn_within_pairs_give_intervals_that_are_too_narrow():
    """The recorded ones, which keep a prompt together over all pairs, are ± 29 to 47 points wide."""
    drawn = tournament.bootstrap(PARSED, within_pairs=True, resamples=400).quantile([0.025, 0.975])
    half = (drawn.loc[0.975] - drawn.loc[0.025]) / 2
    recorded = datafiles.load_figures("guanaco_prompt_bootstrap").set_index("model")
    together = (recorded["high"] - recorded["low"]) / 2
    assert (together.min(), together.max()) == (29, 47)
    assert (half < together).all()
    assert half.between(15, 33).all()


def test_a_prompt_is_drawn_with_all_verdicts_on_it():
    """Twenty copies of every verdict are no new evidence: the intervals stay, where drawing verdicts would shrink."""
    matches = made(200)
    copies = pd.concat([matches] * 20, ignore_index=True)
    once, often = (tournament.bootstrap(table, resamples=300, seed=5).std() for table in (matches, copies))
    pd.testing.assert_series_equal(once, often, rtol=1e-6)
    pairs = pd.concat([matches] * 20, ignore_index=True)
    within = tournament.bootstrap(pairs, within_pairs=True, resamples=300, seed=5).std()
    assert (within > 10).all()


def test_the_bootstrap_s_spread_is_that_of_the_estimate():
    """One match a prompt and a coin for a winner: the standard error of 400/ln 10 x logit is known."""
    winners = ["first"] * 60 + ["second"] * 40
    matches = pd.DataFrame({"prompt": range(100), "first": "a", "second": "b", "winner": winners})
    found = tournament.bootstrap(matches, resamples=4000)
    apart = found["a"] - found["b"]
    assert apart.mean() == pytest.approx(400 * np.log10(60 / 40), abs=3)
    assert apart.std() == pytest.approx(400 / np.log(10) / (100 * 0.6 * 0.4) ** 0.5, rel=0.06)


def test_ties_count_half():
    rows = [("1", "a", "b", "tie"), ("2", "a", "b", "first"), ("3", "a", "b", "tie"), ("4", "a", "b", "first")]
    matches = pd.DataFrame(rows, columns=["prompt", "first", "second", "winner"])
    apart = tournament.bradley_terry(matches).loc[["a", "b"]].to_list()
    assert apart[0] - apart[1] == pytest.approx(400 * np.log10(3))
    assert tournament.elo(matches.iloc[[0]], orderings=1).loc[0].tolist() == [1000, 1000]


def test_unparsed_verdicts_are_left_out_and_counted(capsys):
    assert tournament.bradley_terry(PUBLISHED).equals(tournament.bradley_terry(PARSED))
    assert capsys.readouterr().err == "13 of 4480 verdicts could not be parsed, and are left out.\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m[:0], "There is no match with a verdict"),
        (lambda m: m.assign(winner="a"), "Unknown winner 'a'; it has to be one of first, tie, second, unparsed"),
        (
            lambda m: m.assign(winner=np.where(m["first"] > m["second"], "first", "second")),
            "No finite rating fits: against the others, . only won",
        ),
    ],
    ids=["none", "unknown", "apart"],
)
def test_what_cannot_be_rated_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        tournament.bradley_terry(change(made()))


@pytest.mark.parametrize("change", [{"k": 0}, {"orderings": 0}], ids=str)
def test_elo_needs_points_and_orders(change):
    with pytest.raises(ValueError, match="both have to be above zero"):
        tournament.elo(made(), **change)


PROMPTS = [{"id": f"p{number}", "text": f"Question {number}?"} for number in range(3)]
ANSWERS = {name: [f"{name} on {number}" for number in range(3)] for name in ("base", "lora", "full")}


def held(path, **change) -> tournament.Tournament:
    return tournament.Tournament(**{"answers": ANSWERS, "prompts": PROMPTS, "path": path, "judge": "made"} | change)


def test_a_tournament_shows_each_pair_in_both_orders_and_no_name(tmp_path):
    found = held(tmp_path / "verdicts.jsonl")
    pairs = {(match.prompt, match.first, match.second) for match in found.matches}
    assert pairs == {(p["id"], *pair) for p in PROMPTS for pair in itertools.permutations(ANSWERS, 2)}
    assert len(found.matches) == len(pairs)
    assert found.seen(tournament.Match("p1", "lora", "base")) == ("Question 1?", "lora on 1", "base on 1")


def test_sides_are_shuffled_for_people_by_the_seed_alone(tmp_path):
    prompts = [{"id": f"p{number}", "text": "?"} for number in range(60)]
    answers = {name: [name] * 60 for name in ("base", "lora", "full")}
    first, again, other = (
        held(tmp_path / "v.jsonl", prompts=prompts, answers=answers, sides_seed=seed).matches for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len({(match.prompt, *sorted((match.first, match.second))) for match in first}) == len(first) == 180
    left = Counter(match.first for match in first)
    assert all(35 < left[name] < 85 for name in answers), left


def test_a_tournament_goes_on_where_it_was_stopped(tmp_path):
    path = tmp_path / "deep" / "verdicts.jsonl"
    first = held(path)
    for match in first.matches[:5]:
        first.record(match, "tie")
    again = held(path)
    assert again.waiting() == first.matches[5:]
    pd.testing.assert_frame_equal(again.verdicts(), first.verdicts())
    assert list(again.verdicts()) == list(PUBLISHED)


KILLED = """
import os, signal, sys
from tests.test_tournament import held
found = held(sys.argv[1])
for match, winner in zip(found.matches, ("first", "tie", "second")):
    found.record(match, winner)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_verdict_is_lost_on_a_kill(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert held(path).verdicts()["winner"].tolist() == ["first", "tie", "second"]


def test_a_line_that_a_kill_cut_off_is_judged_again(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    first = held(path)
    for match in first.matches[:2]:
        first.record(match, "first")
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    again = held(path)
    assert again.waiting() == first.matches[1:]
    again.record(again.waiting()[0], "first")
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"judge": "other"}, "verdicts.jsonl, line 1, field 'judge': 'made', not 'other'; name another file"),
        ({"answers": ANSWERS | {"base": ["new"] * 3}}, "field 'seen': this verdict is on other answers"),
        ({"answers": {name: ANSWERS[name] for name in ("full", "lora")}}, "field 'seen': this verdict is on other"),
    ],
    ids=["judge", "texts", "models"],
)
def test_verdicts_on_something_else_are_not_taken_over(tmp_path, change, words):
    first = held(tmp_path / "verdicts.jsonl")
    first.record(first.matches[0], "first")
    with pytest.raises(DataError, match=words):
        held(tmp_path / "verdicts.jsonl", **change)


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    path.write_text(json.dumps({"messages": []}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="verdicts.jsonl, line 1, field 'winner': here stands no verdict"):
        held(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answers": {"base": ["a"] * 3}}, "needs two models or more, and here is 1"),
        ({"answers": {"base": ["a"] * 3, "lora": ["a"] * 2}}, "lora: 2 answers to 3 prompts"),
        ({"answers": {"base": [], "lora": []}, "prompts": []}, "base: 0 answers to 0 prompts"),
    ],
    ids=["one model", "an answer is missing", "no prompts"],
)
def test_what_is_no_tournament_is_named(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        held(tmp_path / "verdicts.jsonl", **change)


def test_what_is_no_verdict_is_not_recorded(tmp_path):
    found = held(tmp_path / "verdicts.jsonl")
    with pytest.raises(ValueError, match="one of first, second, tie, unparsed; the judge 'made' said 'A'"):
        found.record(found.matches[0], "A")
    assert not found.path.exists()
