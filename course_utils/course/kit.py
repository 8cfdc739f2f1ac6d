"""What in the instructor's kit is taken from the notebooks? The numbers of its cells, and the key to its vote."""

import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_utils.claims import Verdict, load_claims
from course_utils.core.files import ROOT, notebook, notebooks, write_whole
from course_utils.course import marks
from course_utils.course.claims_page import collect, table
from course_utils.course.sections import title

KIT = ROOT / "instructors"
NAMED = re.compile(r"In \[\d*\] `([\w-]+)`")  # a cell, by the number that Jupyter shows, and by its id
VOTE = ("L5", "M19", "M9", "L22", "F18", "F31", "M1", "M10", "M11", "M12")  # some true, some not, from each lesson


def pages() -> list[Path]:
    """The pages that belong to a lesson, each of them named like its notebook."""
    return sorted(KIT.glob("0*.md"))


def numbered(text: str, lesson: NotebookNode) -> str:
    """The text of a page, in which each cell has the number that Jupyter shows beside it.

    Raises:
        ValueError: the notebook has no cell of an id that the text names.
    """
    cells = [cell.id for cell in lesson.cells if cell.cell_type == "code"]
    if unknown := [id for id in NAMED.findall(text) if id not in cells]:
        raise ValueError(
            f"{title(lesson)}: there is no code cell {', '.join(unknown)}; the page has to name another one."
        )
    return NAMED.sub(lambda found: f"In [{cells.index(found[1]) + 1}] `{found[1]}`", text)


def verdicts_on(ids: Iterable[str]) -> list[Verdict]:
    """The verdicts that the executed notebooks give on some claims, in that order.

    Raises:
        ValueError: a claim has none.
    """
    given, ids = {each.id: each for each in collect(notebooks())}, list(ids)
    if without := [id for id in ids if id not in given]:
        raise ValueError(f"No notebook gives a verdict on {', '.join(without)}; run it, or choose other claims.")
    return [given[id] for id in ids]


def ballot() -> str:
    """The statements of the vote, with room for two counts of hands."""
    known = load_claims()
    rows = [(str(n), known[id]["statement"], known[id]["notebook"][:2], "", "") for n, id in enumerate(VOTE, 1)]
    return table(("", "statement", "lesson", "hands before", "after"), rows)


def key() -> str:
    """What the notebooks say of these statements."""
    rows = [(str(n), f"**{v.verdict}**", v.measured, f"[{v.id}]") for n, v in enumerate(verdicts_on(VOTE), 1)]
    return table(("", "verdict", "measured here", "claim"), rows)


def write() -> None:
    """Put the numbers of cells into the pages, and the vote and its key between their marks."""
    for page in pages():
        lesson = nbformat.read(notebook(page.stem), as_version=4)
        write_whole(page, numbered(page.read_text(encoding="utf-8"), lesson))
    for mark, text in (("vote", ballot()), ("key", key())):
        marks.put_between(KIT / "README.md", mark, text)
