"""The ledger records, renders, survives in the notebook, and is what the README shows."""

import nbformat
import pytest
from nbformat import v4

from course_utils import claims
from course_utils.claims import Claim
from course_utils.core.files import ROOT, notebooks
from course_utils.course import readme
from course_utils.datafiles import load_claims

LEDGERS = {path.stem: readme.collect([path]) for path in notebooks()}


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(claims, "_recorded", {})


def test_a_verdict_is_printed_and_kept(fresh, capsys):
    claims.record("L1", "logits equal", holds=True)
    claims.record("L4", "factor 3", holds=False, partly=True)
    claims.record("L7", "9,285 times", holds=False)
    known = load_claims()
    assert capsys.readouterr().out.splitlines() == [
        f"[L1] {known['L1']['statement']}",
        "     holds: logits equal",
        f"[L4] {known['L4']['statement']}",
        "     holds partly: factor 3",
        f"[L7] {known['L7']['statement']}",
        "     does not hold at this scale: 9,285 times",
    ]
    assert repr(claims.ledger()).splitlines() == [
        "3 claims",
        "1 holds: L1",
        "1 holds partly: L4",
        "1 does not hold at this scale: L7",
    ]


def test_a_cell_that_is_run_again_replaces_its_verdict(fresh):
    claims.record("L1", "first", holds=False)
    claims.record("L1", "second", holds=True)
    (claim,) = claims.ledger().claims
    assert (claim.measured, claim.verdict) == ("second", "holds")
    assert claim.statement == load_claims()["L1"]["statement"]


def test_an_unknown_claim_names_the_known_ones(fresh):
    with pytest.raises(ValueError, match=r"Unknown claim 'L99'.*L1, "):
        claims.record("L99", "", holds=True)


def test_html_shows_every_field_and_no_markup_of_its_own():
    shown = claims.Ledger([Claim("X", "a < b", "source", "1 & 2", "holds")])._repr_html_()
    assert "a &lt; b" in shown
    assert "1 &amp; 2" in shown
    assert shown.count("<tr>") == 2


def test_collect_reads_what_a_notebook_displayed(fresh, tmp_path):
    claims.record("L1", "logits equal", holds=True)
    ledger = claims.ledger()
    cell = v4.new_code_cell("claims.ledger()", execution_count=1)
    cell.outputs = [v4.new_output("execute_result", data=ledger._repr_mimebundle_(), execution_count=1)]
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# x"), cell]), tmp_path / "a.ipynb")
    assert readme.collect([tmp_path / "a.ipynb"]) == ledger.claims


def test_readme_table_is_put_between_the_marks(fresh, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- claims -->\nold\n<!-- /claims -->\nafter\n", encoding="utf-8")
    readme.write_readme([], page)
    assert (
        page.read_text(encoding="utf-8") == f"before\n<!-- claims -->\n{readme.markdown([])}<!-- /claims -->\nafter\n"
    )
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="<!-- claims -->"):
        readme.write_readme([], page)
    row = readme.markdown([Claim("X", "a | b", "s", "m", "holds")]).splitlines()[-1]
    assert row == r"| a \| b | s | m | **holds** |"


def test_readme_table_is_up_to_date():
    """If not: `python -m course_utils.course --docs` writes it from the executed notebooks."""
    table = readme.README_TABLE.search((ROOT / "README.md").read_text(encoding="utf-8")).group()
    assert table == readme.markdown(readme.collect(notebooks()))


@pytest.mark.parametrize("name", LEDGERS)
def test_every_claim_of_a_notebook_is_recorded_there(name):
    """None is left out, none is recorded in the wrong place, and the statements are those of the data file."""
    expected = {key: row for key, row in load_claims().items() if row["notebook"] == name}
    assert {claim.id for claim in LEDGERS[name]} == set(expected)
    for claim in LEDGERS[name]:
        assert (claim.statement, claim.source) == (expected[claim.id]["statement"], expected[claim.id]["source"])


def test_the_lessons_statements_on_lora_are_all_there():
    """Nine statements of the lesson's part on how LoRA works, F1 to F9."""
    assert {f"F{number}" for number in range(1, 10)} <= {claim.id for claim in LEDGERS["01_lora"]}
