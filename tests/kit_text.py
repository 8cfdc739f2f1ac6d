"""What does the instructor's kit say? Its pages and schedules, read for the tests."""

import functools
import re

import nbformat

from course_utils.core.files import lessons
from course_utils.course import kit, tables
from course_utils.course.kit import KIT
from course_utils.course.sections import sections

README = (KIT / "README.md").read_text(encoding="utf-8")
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in kit.pages()}
LESSONS = {path.stem: nbformat.read(path, as_version=4) for path in lessons()}
SECTIONS = {name: sections(notebook) for name, notebook in LESSONS.items()}
UNPLANNED = "Further reading"  # the only section that is not taught
OUT_OF_DATE = "it is not what the notebooks say now: write it again with `make docs`"


def plan(name: str) -> list[list[str]]:
    """The sections of a page's plan, without its last line, the totals."""
    return tables.rows(TEXTS[name], "The plan")[:-1]


def minutes(row: list[str]) -> list[int]:
    """To teach, to run, for exercises."""
    return [int(re.match(r"\d+", cell)[0]) for cell in row[2:5]]


def planned(name: str) -> list[str]:
    """The sections of a lesson that are taught."""
    return [title for title in SECTIONS[name] if title != UNPLANNED]


def part(name: str, heading: str) -> str:
    """The text of a page below a heading, up to the next."""
    return re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", TEXTS[name], re.DOTALL | re.MULTILINE)[1]


def lesson_of(number: str) -> str:
    """The name of the lesson that a schedule or a claim calls "01"."""
    (name,) = [name for name in TEXTS if name.startswith(number)]
    return name


@functools.cache
def run_in(lesson: str, text: str) -> list[str]:
    """The sections that a line of a schedule runs: those an arrow includes are, those in italics are only shown.

    Raises:
        ValueError: the lesson has no such section.
    """
    order, found = planned(lesson), []
    for item in text.split("; "):
        first, _, last = item.strip("*").partition(" → ")
        between = order[order.index(first) : order.index(last or first) + 1]
        found += [] if item.startswith("*") else between
    return found
