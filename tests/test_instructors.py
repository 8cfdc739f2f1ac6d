"""A page of the instructor's kit says what its notebook says: minutes, checkpoints, cells, verdicts, exercises."""

import re

import nbformat
import pytest
from nbformat import v4

from course_utils.claims import load_claims
from course_utils.core.files import ROOT, lessons, notebooks
from course_utils.course import kit, tables
from course_utils.course.claims_page import collect
from course_utils.course.sections import record, sections
from course_utils.exercises import exercise
from tests.kept_runs import RUNS
from tests.kit_text import KIT, LESSONS, OUT_OF_DATE, README, SECTIONS, TEXTS, minutes, part, plan, planned
from tests.notebooks.prose_numbers import unknown_numbers

VERDICTS = {each.id: each for each in collect(notebooks())}
HALVES = {path.stem: nbformat.read(path, as_version=4) for path in notebooks() if path.parent.name == "deeper"}
FALL_BACK, LATER, SKIP, HALF = (
    "Slow cells, and what to fall back on",
    "Exercises for later",
    "What to skip",
    "The second half",
)
PARTS = [
    "The plan",
    "Type live",
    "Checkpoints",
    "Questions students ask",
    "Misconceptions",
    FALL_BACK,
    LATER,
    SKIP,
    HALF,
]
VAGUE = set("understand know learn see appreciate be have".split())  # nobody can tell whether that was reached
CELL = re.compile(r"In \[\d+\] `([\w-]+)`")
SPAN = re.compile(r"`([^`]+)`")
EXEMPT = {  # numbers in answers that nothing prints
    "for 7 billion parameters": "a question",
    "27.5 times fewer trained parameters, and the peak falls by a factor of 1.33": "the verdict of M9, in other words",
    "but the model has 134,515,008": "printed in notebook 01",
    "Where do 4.127 bits come from": "4, and the 0.127 of the verdict on Q6",
    "4 for the index, 8 for each absmax of 64 weights, 32 for each second absmax of 64 · 256": "a definition",
    "24 · 10⁹ bytes, just into 24 GiB": "a card's size, in two units",
}
by_page = pytest.mark.parametrize("name", TEXTS)


def cells(name: str) -> dict[str, nbformat.NotebookNode]:
    """The code cells of a lesson by id, in order."""
    return {cell.id: cell for cell in LESSONS[name].cells if cell.cell_type == "code"}


def half(name: str) -> nbformat.NotebookNode:
    """The second half that a page links."""
    return HALVES[re.search(r"\(\.\./notebooks/deeper/(\w+)\.ipynb\)", part(name, HALF))[1]]


def printed(cell: nbformat.NotebookNode) -> str:
    """What a cell shows on every machine: its outputs without the error stream."""
    shown = [output for output in cell.outputs if output.get("name") != "stderr"]
    return "\n".join(output.get("text") or str(output.get("data", {}).get("text/plain", "")) for output in shown)


def test_every_page_is_that_of_a_lesson_and_listed():
    assert TEXTS
    assert set(TEXTS) <= set(LESSONS)
    assert [name for name in TEXTS if f"({name}.md)" not in README] == []


@by_page
def test_a_page_has_all_parts_and_is_read_in_ten_minutes(name):
    assert re.findall(r"^## (.+)$", TEXTS[name], re.MULTILINE) == PARTS
    assert sum(any(map(str.isalnum, word)) for word in TEXTS[name].split()) <= 1800


@by_page
def test_every_section_has_an_objective_that_can_be_checked(name):
    assert [row[0] for row in plan(name)] == planned(name)
    objectives = [row[1].split() for row in plan(name)]
    assert [" ".join(words) for words in objectives if words[0] in VAGUE or len(words) < 4] == []


@by_page
def test_the_minutes_add_up(name):
    teach, run, practice = (sum(column) for column in zip(*map(minutes, plan(name)), strict=True))
    total = tables.rows(TEXTS[name], "The plan")[-1]
    assert total == ["**Total**", "", str(teach), str(run), str(practice), ""]
    stated = f"**{teach + run + practice} minutes**: {teach} to teach, {run} to run, {practice} for exercises;"
    assert stated in TEXTS[name]


@by_page
def test_running_a_section_takes_no_longer_than_planned(name):
    took = record().get(name)
    assert took, f"{name} is not in instructors/seconds.json: run `python -m course_utils.course --in-place` on it"
    assert list(took) == [title for title, inside in SECTIONS[name].items() if inside]
    allowed = {row[0]: 60 * minutes(row)[1] for row in plan(name)}
    assert {title: seconds for title, seconds in took.items() if seconds > allowed[title]} == {}


@by_page
def test_every_code_cell_is_typed_or_run(name):
    typed = re.findall(rf"^- {CELL.pattern}", part(name, "Type live"), re.MULTILINE)
    inside = {title: [cell.id for cell in found] for title, found in SECTIONS[name].items()}
    assert sum(inside.values(), []) == list(cells(name)), "a cell in no section"
    for title, *_, said in plan(name):
        live = sum(id in typed for id in inside[title])
        counts = {"type": live, "run": len(inside[title]) - live}
        assert said == (", ".join(f"{n} {how}" for how, n in counts.items() if n) or "none"), title


@by_page
def test_checkpoints_are_printed_by_their_cells(name):
    rows = tables.rows(TEXTS[name], "Checkpoints")
    ids = [CELL.fullmatch(cell)[1] for _, cell, _ in rows]
    assert ids == [id for id in cells(name) if id in ids], "not in the order of the notebook"
    assert len({title for title, *_ in rows}) >= 0.75 * len(planned(name))
    for (title, _, seen), id in zip(rows, ids, strict=True):
        assert id in [cell.id for cell in SECTIONS[name][title]]
        assert "nbval-ignore-output" not in cells(name)[id].metadata.get("tags", []), id
        assert SPAN.findall(seen), id
        assert [text for text in SPAN.findall(seen) if text not in printed(cells(name)[id])] == [], id


@by_page
def test_cells_have_the_numbers_that_jupyter_shows(name):
    assert kit.numbered(TEXTS[name], LESSONS[name]) == TEXTS[name], OUT_OF_DATE
    assert "In [" not in CELL.sub("", TEXTS[name]), "a cell without its id"


@by_page
def test_sections_that_a_page_quotes_exist(name):
    titles = {title.rstrip("?.,") for title in [*SECTIONS[name], *sections(half(name))]}
    for heading in (FALL_BACK, LATER, SKIP, HALF):
        quoted = re.findall(r'"([A-Z0-9][^"]+)"', part(name, heading))
        assert [title for title in quoted if title.rstrip("?.,") not in titles] == []


@by_page
def test_exercises_are_those_of_the_lesson(name):
    (folder,) = [lesson for lesson in exercise.lessons() if name.startswith(lesson.NUMBER)]
    now = {id: minutes(row)[2] for row in plan(name) for id in SPAN.findall(row[4])}
    later, _, deeper = part(name, LATER).partition("With the second half:")
    assert sorted([*now, *SPAN.findall(later)]) == sorted(folder.LESSON)
    assert SPAN.findall(deeper) == list(folder.DEEPER)
    assert {id: given for id, given in now.items() if given < exercise.load(id).minutes} == {}
    said = {id: int(given) for id, given in re.findall(r"`(\w+)`[^`]*?\((\d+) minutes", later)}
    assert said == {id: exercise.load(id).minutes for id in said}


@by_page
def test_misconceptions_are_refuted_by_verdicts(name):
    rows = tables.rows(TEXTS[name], "Misconceptions")
    assert len(rows) >= 5
    for said, claim, verdict, answer in rows:
        assert VERDICTS[re.fullmatch(r"\[(\w+)\]", claim)[1]].verdict == verdict, said
        assert verdict != "not decided here", said
        assert answer, said


@by_page
def test_claims_that_a_page_cites_exist(name):
    cited = re.findall(r"(?<!In )\[([A-Z]\d+b?)\]", TEXTS[name])
    assert cited
    assert [id for id in cited if id not in load_claims()] == []


@by_page
def test_numbers_in_answers_were_measured(name):
    """They are printed in the lesson or its second half, or stand in a verdict."""
    code = [cell for cell in [*LESSONS[name].cells, *half(name).cells] if cell.cell_type == "code"]
    shown = [str(o.get("text") or o.get("data", {}).get("text/plain", "")) for cell in code for o in cell.outputs]
    measured = [f"{each.measured} {each.statement}" for each in VERDICTS.values()]
    answers = CELL.sub("", part(name, "Questions students ask") + part(name, "Misconceptions"))
    for passage in EXEMPT:
        answers = answers.replace(passage, "")
    assert unknown_numbers(answers, "\n".join([*(cell.source for cell in code), *shown, *measured])) == []


@pytest.mark.parametrize("name", RUNS)
def test_a_kept_run_is_named_with_what_it_replaces(name):
    said = part(RUNS[name].lesson, FALL_BACK)
    for code in (RUNS[name].trains, *RUNS[name].demo(name).splitlines()):
        assert f"`{code}`" in said


def test_every_exemption_is_needed():
    assert [passage for passage in EXEMPT if passage not in "".join(TEXTS.values())] == []


def test_a_table_is_read_from_below_its_heading():
    text = "## A\n\n| x |\n|---|\n| 0 |\n\n## B\n\ntext\n\n| y | z |\n|---|---|\n| *1* | `a\\|b` |\n| 2 | |\n"
    assert tables.rows(text, "B") == [["*1*", "`a|b`"], ["2", ""]]
    assert tables.html("*1* & `a`") == "<em>1</em> &amp; <code>a</code>"
    with pytest.raises(ValueError, match="no table below a heading 'C'"):
        tables.rows(text, "C")


def test_a_cell_that_is_gone_is_named():
    made = v4.new_notebook(cells=[v4.new_markdown_cell("# x"), v4.new_code_cell("1", id="one")])
    assert kit.numbered("first In [7] `one`, then `two`", made) == "first In [1] `one`, then `two`"
    with pytest.raises(ValueError, match="^x: there is no code cell two;"):
        kit.numbered("In [1] `two`", made)


def test_messages_in_troubleshooting_are_those_of_the_course():
    sources = [*(ROOT / "course_utils").rglob("*.py"), ROOT / "Makefile", *lessons()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    rows = tables.rows((KIT / "troubleshooting.md").read_text(encoding="utf-8"), "When something goes wrong")
    messages = [message for row in rows for message in SPAN.findall(row[0])]
    assert len(messages) >= 8
    assert [message for message in messages if message not in text] == []
