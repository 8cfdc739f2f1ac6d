"""A verdict is worded by the kind of its claim, printed and kept; every sentence of the lesson has one, or owes one."""

import json

import pytest

from course_utils import claims
from course_utils.claims import Verdict, load_claims
from course_utils.core import files
from course_utils.core.files import ROOT, notebooks
from course_utils.course.claims_page import KINDS, collect
from course_utils.datafiles import DataError

GIVEN = {path.stem: collect([path]) for path in notebooks()}
LESSON = [f"F{number}" for number in range(1, 39)]  # the sentences of the lesson that the course implements
OWED = set((ROOT / "tests" / "fixtures" / "owed.txt").read_text(encoding="utf-8").split("\n", 1)[1].split())


@pytest.fixture
def made(monkeypatch, tmp_path):
    """One claim of each kind, named by its kind, and no verdicts yet."""
    monkeypatch.setattr(claims, "_given", {})
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    rows = [{"id": k, "notebook": "n", "kind": k, "statement": f"S {k}", "source": "s"} for k in claims.VERDICTS]
    path = tmp_path / "claims.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


WORDS = [  # written out a second time: these words are the course's promise
    ("run", {"holds": True}, "seen here"),
    ("run", {"holds": False, "partly": True}, "partly seen here"),
    ("run", {"holds": False}, "not decided here"),
    ("run", {"holds": False, "opposite": True}, "the opposite seen here"),
    ("exact", {"holds": True}, "true"),
    ("exact", {"holds": True, "partly": True}, "true"),
    ("exact", {"holds": False, "partly": True}, "true under a condition"),
    ("exact", {"holds": False}, "false"),
    ("code", {"holds": True}, "the code agrees"),
    ("code", {"holds": False}, "the code does otherwise"),
    ("print", {"holds": True}, "adds up"),
    ("print", {"holds": False, "partly": True}, "adds up under a condition"),
    ("print", {"holds": False}, "does not add up"),
    ("belief", {"holds": True}, "borne out"),
    ("belief", {"holds": False, "partly": True}, "needs a condition"),
    ("belief", {"holds": False}, "a counterexample"),
]


@pytest.mark.parametrize(("kind", "found", "words"), WORDS, ids=lambda value: value if isinstance(value, str) else "")
def test_each_kind_has_its_own_words(made, capsys, kind, found, words):
    claims.verdict(kind, "3 of 4", **found)
    assert capsys.readouterr().out == f"[{kind}] S {kind}\n     {words}: 3 of 4\n"
    assert claims.verdicts().given == [Verdict(kind, kind, f"S {kind}", "s", "3 of 4", words)]


def test_all_words_are_tried_and_every_kind_is_explained():
    assert {(kind, words) for kind, _, words in WORDS} == {
        (kind, word) for kind, words in claims.VERDICTS.items() for word in words.values()
    }
    assert set(KINDS) == set(claims.VERDICTS)


@pytest.mark.parametrize(
    ("kind", "found", "message"),
    [
        (
            "code",
            {"holds": False, "partly": True},
            "of the kind 'code', which has no verdict 'partly'",
        ),
        ("exact", {"holds": False, "opposite": True}, "has no verdict 'opposite'.*Leave opposite= out"),
        ("run", {"holds": True, "opposite": True}, "Claim 'run': the opposite was seen, and the statement too"),
        ("run", {"holds": False, "partly": True, "opposite": True}, "the opposite was seen, and the statement too"),
    ],
)
def test_a_verdict_that_a_kind_has_not_is_refused(made, kind, found, message):
    with pytest.raises(ValueError, match=message):
        claims.verdict(kind, "", **found)
    assert claims.verdicts().given == []


def test_a_cell_that_is_run_again_replaces_its_verdict(made):
    claims.verdict("run", "first", holds=False)
    claims.verdict("run", "second", holds=True)
    (given,) = claims.verdicts().given
    assert (given.measured, given.verdict) == ("second", "seen here")


def test_verdicts_are_counted_by_kind(made):
    for kind in ("print", "run", "belief"):
        claims.verdict(kind, "", holds=True)
    expected = ["3 verdicts", "run    1 seen here: run", "print  1 adds up: print", "belief 1 borne out: belief"]
    assert repr(claims.verdicts()).splitlines() == expected


def test_an_unknown_claim_names_the_known_ones(made):
    with pytest.raises(ValueError, match="Unknown claim 'L99'; data/claims.jsonl has run, exact, "):
        claims.verdict("L99", "", holds=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "guess"}, "line 1, field 'kind': unknown kind 'guess'; choose from run, exact, code"),
        ({"id": "exact"}, "line 2, field 'id': 'exact' stands there twice"),
        ({"source": ""}, "line 1, field 'source'"),
    ],
)
def test_a_line_that_is_no_claim_is_named(made, change, message):
    first, *rest = made.read_text(encoding="utf-8").splitlines()
    made.write_text("\n".join([json.dumps(json.loads(first) | change), *rest]), encoding="utf-8")
    with pytest.raises(DataError, match=rf"claims.jsonl, {message}"):
        load_claims()


def test_html_shows_every_field_and_no_markup_of_its_own():
    shown = claims.Verdicts([Verdict("X", "run", "a < b", "source", "1 & 2", "seen here")])._repr_html_()
    assert "a &lt; b" in shown
    assert "1 &amp; 2" in shown
    assert shown.count("<tr>") == 2


@pytest.mark.parametrize("name", GIVEN)
def test_a_notebook_gives_verdicts_on_its_own_claims_and_as_they_are_stated(name):
    known = load_claims()
    for given in GIVEN[name]:
        row = known[given.id]
        assert (row["notebook"], row["kind"]) == (name, given.kind)
        assert (row["statement"], row["source"]) == (given.statement, given.source)
        assert given.verdict in claims.VERDICTS[given.kind].values()


def test_every_claim_has_a_verdict_or_is_owed():
    """And never both: what is measured goes off the list."""
    given = {each.id for found in GIVEN.values() for each in found}
    missing = set(load_claims()) - given
    assert not missing - OWED, "give them a verdict in their notebook (claims.verdict), and execute it again"
    assert not OWED - missing, "they have a verdict now, or are no claims: take them off tests/fixtures/owed.txt"


def test_every_sentence_of_the_lesson_is_entered_and_only_those_may_be_owed():
    """The list can only get shorter: F1 to F9 have their verdicts, and nothing else may be added to it."""
    assert set(LESSON) <= set(load_claims())
    assert set(LESSON[9:]) >= OWED
    assert all(load_claims()[name]["source"].startswith("course lesson, ") for name in LESSON)


def test_the_datasheet_explains_every_field_of_a_claim():
    sheet = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in sheet.splitlines() if line.startswith("**`claims.jsonl`**: ")]
    fields = {field for row in load_claims().values() for field in row}
    assert {field for field in fields if f"`{field}`" not in line} == set()
