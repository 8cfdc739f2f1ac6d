"""What README and CLAIMS say of the notebooks is what the notebooks say."""

import base64
import re

import nbformat
import pytest
from nbformat import v4

from course_utils import claims
from course_utils.claims import Verdict, load_claims
from course_utils.core import files
from course_utils.core.files import ROOT, notebooks
from course_utils.course import claims_page, marks, readme

PICTURES = {}
for each in notebooks():
    PICTURES |= readme.pictures(nbformat.read(each, as_version=4))
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
OUT_OF_DATE = "it says other things than the executed notebooks and data/claims.jsonl: write it again with `make docs`"


def test_verdicts_are_collected_from_what_a_notebook_displayed(monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "_given", {})
    claims.verdict("L1", "logits equal", holds=True)
    shown = claims.verdicts()
    cell = v4.new_code_cell("claims.verdicts()", execution_count=1)
    cell.outputs = [v4.new_output("execute_result", data=shown._repr_mimebundle_(), execution_count=1)]
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# x"), cell]), tmp_path / "a.ipynb")
    assert claims_page.collect([tmp_path / "a.ipynb"]) == shown.given


def test_a_bar_in_a_text_divides_no_cell_of_its_table():
    row = claims_page.rows_of([Verdict("X", "run", "a | b", "s", "m", "seen here")]).splitlines()[-1]
    assert row == r"| X | a \| b | s | run | m | **seen here** |"


def test_counts_are_those_of_the_verdicts():
    given = [Verdict(str(n), "run", "", "", "", "seen here") for n in range(3)]
    given.append(Verdict("9", "run", "", "", "", "not decided here"))
    assert "3 seen here · 1 not decided here |" in claims_page.counts(given)
    assert claims_page.counts(given).count("none yet") == len(claims.VERDICTS) - 1


def test_claims_page_is_up_to_date():
    written = (ROOT / "CLAIMS.md").read_text(encoding="utf-8")
    assert written == claims_page.page(), OUT_OF_DATE


def test_claims_page_has_every_claim_once():
    text = (ROOT / "CLAIMS.md").read_text(encoding="utf-8")
    for row in load_claims().values():
        assert text.count(f"| {row['statement']} |") == 1, row["statement"]


def test_readme_is_up_to_date():
    assert marks.between(ROOT / "README.md", "claims") == readme.claims_part(), OUT_OF_DATE


def test_eight_claims_surprise_and_all_have_verdicts_of_several_kinds():
    known, given = load_claims(), claims_page.collect(notebooks())
    surprises = [each for each in given if known[each.id].get("surprise")]
    assert len(surprises) == sum(bool(row.get("surprise")) for row in known.values()) == 8
    assert len({each.kind for each in surprises}) >= 4


def test_readme_is_read_in_six_minutes():
    assert sum(any(map(str.isalnum, word)) for word in TEXT.split()) <= 1300


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("README.md", files.lessons()),
        ("docs/index.md", files.lessons()),
        ("CONTRIBUTING.md", [*notebooks(), *files.workbooks()]),
    ],
)
def test_the_minutes_of_notebooks_are_those_of_their_titles(name, paths):
    costs = [re.search(r"cached: (?:(\d+) min )?(\d+) s", path.read_text(encoding="utf-8")) for path in paths]
    minutes = sum(60 * int(cost[1] or 0) + int(cost[2]) for cost in costs) / 60
    (said,) = re.findall(r"about (\d+) minutes", (ROOT / name).read_text(encoding="utf-8"))
    assert abs(int(said) - minutes) <= 1


def test_readme_names_the_commands_of_the_course():
    for command in ("course", "test", "lab", "docs", "help"):
        assert re.search(rf"\bmake {command}\b", TEXT), command


@pytest.mark.parametrize("name", PICTURES)
def test_readme_pictures_are_those_of_the_notebooks(name):
    assert (ROOT / "notebooks" / name).read_bytes() == PICTURES[name]
    assert f"(notebooks/{name})" in TEXT


def test_no_other_picture_lies_beside_the_notebooks():
    assert {path.name for path in (ROOT / "notebooks").glob("*.png")} == set(PICTURES)


def made(*outputs: dict) -> nbformat.NotebookNode:
    cell = v4.new_code_cell("plot()", metadata={"tags": ["rtol=1e-3", "readme=shown"]})
    cell.outputs = [v4.new_output("display_data", data=data) for data in outputs]
    return v4.new_notebook(cells=[v4.new_markdown_cell("# 09 · Title\n\nText"), cell])


def test_a_picture_is_named_by_the_tag_of_its_cell():
    image = {"image/png": base64.b64encode(b"bytes").decode()}
    assert readme.pictures(made({"text/plain": "x"}, image)) == {"shown.png": b"bytes"}
    for outputs in ([], [image, image]):
        with pytest.raises(ValueError, match=rf"^09 · Title: cell 1 .* tag 'readme=shown' has {len(outputs)} pic"):
            readme.pictures(made(*outputs))
    text = v4.new_notebook(cells=[v4.new_markdown_cell("# x", metadata={"tags": ["readme=shown"]})])
    with pytest.raises(ValueError, match=r"^x: cell 0 .* has 0 pictures; it needs one\.$"):
        readme.pictures(text)


def test_documents_are_written_where_they_belong(monkeypatch, tmp_path):
    page = tmp_path / "CLAIMS.md"
    claims_page.write_page(page)
    assert page.read_text(encoding="utf-8") == claims_page.page()
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("a\n<!-- claims -->\n<!-- /claims -->\nb\n", encoding="utf-8")
    readme.write_readme()
    expected = f"a\n<!-- claims -->\n{readme.claims_part()}<!-- /claims -->\nb\n"
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == expected
    assert files.ROOT == ROOT
