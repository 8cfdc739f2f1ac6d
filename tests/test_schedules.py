"""The schedules add up, leave time for their cells, and leave out nothing that they need; the vote has its key."""

import functools
import re
import symtable
from itertools import accumulate

import pytest
from nbformat import NotebookNode, v4

from course_utils.claims import load_claims
from course_utils.course import kit, marks, tables
from course_utils.course.sections import record, sections
from tests.kit_text import KIT, OUT_OF_DATE, README, SECTIONS, TEXTS, lesson_of, minutes, plan, planned, run_in

TITLES = re.findall(r"^### (\d+ (?:minutes|hours|day).*)$", README, re.MULTILINE)
by_title = pytest.mark.parametrize("title", TITLES)


def blocks(title: str) -> list[tuple[int, str, list[str]]]:
    """The lines of a schedule with a lesson: its minutes, the lesson's name, and the sections that are run."""
    lines = [(int(given), lesson_of(n), titles) for _, given, n, titles, _ in tables.rows(README, title) if n]
    return [(given, name, run_in(name, titles)) for given, name, titles in lines]


def test_there_are_schedules_of_four_lengths():
    assert [re.match(r"\d+ \w+", title)[0] for title in TITLES] == [
        "90 minutes",
        "3 hours",
        "1 day",
        "2 days",
        "2 days",
    ]


@by_title
def test_a_schedule_adds_up(title):
    rows = tables.rows(README, title)
    given = [int(row[1]) for row in rows]
    assert sum(given) == int(re.search(r"(\d+) minutes", title)[1])
    starts = [0, *accumulate(given)][:-1]
    assert [row[0] for row in rows] == [f"{start // 60}:{start % 60:02}" for start in starts]


@by_title
def test_a_schedule_leaves_time_for_its_cells(title):
    for given, name, ran in blocks(title):
        assert name in record(), f"{name} is not in instructors/seconds.json: run it with --in-place"
        assert sum(record()[name].get(each, 0) for each in ran) < 60 * given, ran


def test_two_days_are_the_pages_whole():
    found = {name: [] for name in TEXTS}
    for title in TITLES[-2:]:
        for given, name, ran in blocks(title):
            taken = {row[0]: sum(minutes(row)) for row in plan(name)}
            assert given == sum(taken[each] for each in ran), ran
            found[name] += ran
    assert found == {name: planned(name) for name in TEXTS}


def names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell makes, and those that it takes from elsewhere."""
    top = symtable.symtable(source, "cell", "exec")
    made = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    taken, inner = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, top.get_children()
    while inner:
        table, *inner = inner
        inner += table.get_children()
        taken |= {s.get_name() for s in table.get_symbols() if s.is_global()}
    return made, taken - made


def needs(parts: dict[str, list[NotebookNode]]) -> dict[str, set[str]]:
    """For each section, the sections before it that have made the names which its cells take."""
    maker, found = {}, {title: set() for title in parts}
    for title, cell in ((title, cell) for title, cells in parts.items() for cell in cells):
        made, taken = names(cell.source)
        found[title] |= {maker[name] for name in taken if name in maker} - {title}
        maker |= dict.fromkeys(made, title)
    return found


@functools.cache
def needed(name: str) -> dict[str, set[str]]:
    """What each section of a lesson needs."""
    return needs(SECTIONS[name])


def test_what_a_section_needs_is_found():
    texts = (
        "## A",
        "x = y = 1",
        "## B",
        "def f():\n    return x\nz = [y for y in ()]",
        "## C",
        "x = 2",
        "## D",
        "x + f()",
    )
    cells = [v4.new_markdown_cell(t) if t.startswith("#") else v4.new_code_cell(t) for t in texts]
    expected = {"A": set(), "B": {"A"}, "C": set(), "D": {"B", "C"}}
    assert needs(sections(v4.new_notebook(cells=cells))) == expected


@by_title
def test_what_a_schedule_leaves_out_is_not_needed(title):
    ran = {name: set() for name in TEXTS}
    for _, name, titles in blocks(title):
        ran[name] |= set(titles)
    missing = {(name, each): needed(name)[each] - ran[name] for name in ran for each in ran[name]}
    assert {each: sorted(lacks) for each, lacks in missing.items() if lacks} == {}


def test_vote_and_key_are_current():
    assert marks.between(KIT / "README.md", "vote") == kit.ballot(), OUT_OF_DATE
    assert marks.between(KIT / "README.md", "key") == kit.key(), OUT_OF_DATE


def test_ten_statements_some_of_them_true_from_each_lesson():
    given = kit.verdicts_on(kit.VOTE)
    assert len({each.id for each in given}) == 10
    held = sum(each.verdict in ("true", "seen here", "borne out", "adds up", "the code agrees") for each in given)
    assert 3 <= held <= 7
    assert {lesson_of(load_claims()[each.id]["notebook"][:2]) for each in given} == set(TEXTS)


def test_a_claim_without_a_verdict_is_named():
    with pytest.raises(ValueError, match="gives a verdict on F10;"):
        kit.verdicts_on(["L5", "F10"])
