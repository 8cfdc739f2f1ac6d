"""The blind vote: its logic without widgets, and the widget as its buttons and keys are used."""

import builtins
import signal
import subprocess
import sys

import pytest

from course_utils import tournament
from course_utils.core.files import ROOT
from tests.test_tournament import ANSWERS, held


@pytest.fixture
def ballot(tmp_path) -> tournament.Ballot:
    return tournament.Ballot(held(tmp_path / "votes.jsonl", judge="me", sides_seed=3))


def test_votes_are_recorded_for_the_sides_that_were_shown(ballot):
    shown = []
    for key in "120":
        shown.append(ballot.shown)
        ballot.vote(key)
    rows = ballot.tournament.verdicts()
    assert rows["winner"].tolist() == ["first", "second", "tie"]
    for row, (question, left, right) in zip(rows.itertuples(), shown, strict=True):
        number = row.prompt.removeprefix("p")
        assert question == f"Question {number}?"
        assert (left, right) == (f"{row.first} on {number}", f"{row.second} on {number}")


def test_every_pair_comes_once_and_then_it_is_over(ballot):
    while ballot.shown:
        ballot.vote("1")
    assert ballot.progress == "9 of 9 votes"
    rows = ballot.tournament.verdicts()
    assert len({(row.prompt, frozenset((row.first, row.second))) for row in rows.itertuples()}) == 9
    assert not (rows["first"] < rows["second"]).all(), "sides are shuffled"
    with pytest.raises(ValueError, match="All votes are given"):
        ballot.vote("1")


def test_a_ballot_goes_on_behind_the_last_vote(ballot):
    for _ in range(4):
        ballot.vote("0")
    again = tournament.Ballot(held(ballot.tournament.path, judge="me", sides_seed=3))
    assert (again.progress, again.shown) == ("4 of 9 votes", ballot.shown)


KILLED = """
import os, signal, sys
from course_utils import tournament
from tests.test_tournament import held
ballot = tournament.Ballot(held(sys.argv[1], judge="me", sides_seed=3))
for key in "120":
    ballot.vote(key)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_vote_is_lost_on_a_kill(tmp_path):
    path = tmp_path / "votes.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    again = tournament.Ballot(held(path, judge="me", sides_seed=3))
    assert again.progress == "3 of 9 votes"
    assert again.tournament.verdicts()["winner"].tolist() == ["first", "second", "tie"]


def test_another_key_is_no_vote(ballot):
    with pytest.raises(ValueError, match="No key '3'; 1 is left"):
        ballot.vote("3")
    assert ballot.progress == "0 of 9 votes"


def test_votes_feed_the_same_ratings(ballot):
    """Whoever likes the full model best, then LoRA, gets them in this order."""
    order = list(ANSWERS)  # base, lora, full
    while ballot.shown:
        _, left, right = ballot.shown
        better = order.index(left.split()[0]) > order.index(right.split()[0])
        ballot.vote("1" if better else "2")
    rates = tournament.elo(ballot.tournament.verdicts(), k=32, orderings=100).mean()
    assert rates["full"] > rates["lora"] > rates["base"]


def widgets(ballot: tournament.Ballot):
    question, sides, controls, progress = tournament.panel(ballot).children
    return question, sides.children, controls.children[:3], controls.children[3], progress


def test_buttons_and_keys_vote_and_show_the_next_match(ballot):
    question, (left, right), buttons, keys, progress = widgets(ballot)
    for use in (buttons[0].click, lambda: setattr(keys, "value", "2"), lambda: setattr(keys, "value", "0")):
        asked, first, second = ballot.shown
        assert all(text in place.value for place, text in ((question, asked), (left, first), (right, second)))
        use()
    assert ballot.tournament.verdicts()["winner"].tolist() == ["first", "second", "tie"]
    assert progress.value == "3 of 9 votes"
    assert keys.value == ""
    keys.value = "x"
    assert ballot.progress == "3 of 9 votes"
    while ballot.shown:
        buttons[1].click()
    assert "All votes are given" in question.value
    assert all(button.disabled for button in buttons)
    keys.value = "1"
    assert ballot.progress == "9 of 9 votes"


def test_answers_are_shown_as_text_and_name_nobody(tmp_path):
    answers = {"lora": ["<script>alert(1)</script>"] * 3, "full": ["plain"] * 3}
    ballot = tournament.Ballot(held(tmp_path / "v.jsonl", answers=answers, sides_seed=0))
    question, (left, right), *_ = widgets(ballot)
    page = question.value + left.value + right.value
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert not any(name in page for name in answers)


def test_without_ipywidgets_the_way_out_is_named(ballot, monkeypatch):
    original = builtins.__import__

    def without(name: str, *rest: object):
        if name == "ipywidgets":
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        tournament.panel(ballot)
