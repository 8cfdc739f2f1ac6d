"""How do exercises become notebooks? For each lesson one to be solved and one that is, written from the sources."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
from nbformat import NotebookNode, v4

from course_utils.core.files import ROOT, notebooks, write_whole
from course_utils.course.execute import MEASURED
from course_utils.course.sections import title
from course_utils.course.tidy import KERNEL
from course_utils.exercises import exercise
from course_utils.exercises.exercise import Exercise

UNMEASURED = "*Measured on nothing yet.*"
HOW = """\
Each asks for one function. Write it where its stub returns `...`, and run the cell. The checker calls it on a few \
inputs and says whether it is right; if not, which mistake it is, as far as that is a known one, and otherwise what \
differs. It never stops the notebook. A click unfolds a hint, or the solution.

In a clone, `make exercises` copies this notebook to `notebooks/mine/`, where git and the tests leave your answers \
alone. On Colab or Kaggle the notebook is yours anyway."""
SOLVED = """\
Each answer is the source that the checker compares with, so it says "Correct."; other answers can be right as well. \
Do the [exercises](../exercises/{number}.ipynb) first: one learns from the attempt."""


def write() -> list[Path]:
    """Write the notebooks whose cells are not those that the sources make, without outputs: they have to be run again.

    Returns:
        the notebooks that were written.
    """
    stale = [(path, notebook) for path, notebook in made() if not is_current(path, notebook)]
    for path, notebook in stale:
        write_whole(path, nbformat.writes(notebook) + "\n")
    return [path for path, _ in stale]


def made() -> Iterator[tuple[Path, NotebookNode]]:
    """Every notebook of exercises and of solutions, as the sources make it, with its place."""
    for folder in ("exercises", "solutions"):
        for lesson in exercise.lessons():
            yield ROOT / "notebooks" / folder / f"{lesson.NUMBER}.ipynb", _notebook(lesson, folder == "solutions")


def is_current(path: Path, notebook: NotebookNode) -> bool:
    """Whether the file has these cells; outputs, and what the run took, are not compared."""
    return path.is_file() and _cells(nbformat.read(path, as_version=4)) == _cells(notebook)


def _cells(notebook: NotebookNode) -> list[tuple[str, str, str]]:
    return [(cell.id, cell.cell_type, MEASURED.sub(UNMEASURED, cell.source)) for cell in notebook.cells]


def _notebook(lesson: ModuleType, solved: bool) -> NotebookNode:
    """The exercises of one lesson, or their solutions."""
    cells = [*_opening(lesson, solved)]
    number = 0
    for heading, names in (("The lesson", lesson.LESSON), ("The second half", lesson.DEEPER)):
        cells.append(_text(heading.replace(" ", "-").lower(), f"## {heading}"))
        for name in names:
            number += 1
            cells += _cells_of(exercise.load(name), number, solved)
    return v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})


def _opening(lesson: ModuleType, solved: bool) -> Iterator[NotebookNode]:
    """Title and set-up; the words are those of the first lesson, the cell that finds the course is the lesson's own."""
    each = [exercise.load(name) for name in (*lesson.LESSON, *lesson.DEEPER)]
    halves = [path for path in notebooks() if path.stem.startswith(lesson.NUMBER)]
    words, finds = (nbformat.read(path, as_version=4).cells[n] for path, n in ((notebooks()[0], 1), (halves[0], 2)))
    links = [f"[{_title(path)}](../{path.relative_to(ROOT / 'notebooks').as_posix()})" for path in halves]
    about = f"{len(each)} exercises on {' and '.join(links)}, about {sum(one.minutes for one in each)} minutes in all."
    what = SOLVED.format(number=lesson.NUMBER) if solved else HOW
    title = f"# {lesson.NUMBER} · {'Solutions' if solved else 'Exercises'}"
    yield _text("title", f"{title}\n\n{UNMEASURED}\n\n{about} {what}")
    yield _text("set-up", words.source)
    yield _code("find-the-course", finds.source)
    yield _code("imports", lesson.IMPORTS)


def _cells_of(one: Exercise, number: int, solved: bool) -> Iterator[NotebookNode]:
    """Task, what is given, the function with its check; hints and solution, where it is still to be written."""
    question, _, rest = one.task.partition("\n\n")
    paragraphs = re.sub(r"(?<!\n)\n(?![\n-])", " ", rest)
    facts = f"*{one.kind.capitalize()} · difficulty {one.difficulty} of 3 · {one.minutes} minutes*"
    yield _text(f"{one.name}-task", f"### {number} · {question}\n\n{facts}\n\n{paragraphs}")
    if one.given:
        yield _code(f"{one.name}-given", "\n\n\n".join(inspect.getsource(each).rstrip() for each in one.given))
    answer = one.solution if solved else one.stub
    yield _code(f"{one.name}-answer", f"{answer}\n\n\nexercises.check({one.name})")
    if not solved:
        folds = [(f"Hint {n}", hint) for n, hint in enumerate(one.hints, 1)]
        folds.append(("Solution", f"```python\n{one.solution}\n```"))
        text = "\n\n".join(f"<details><summary>{name}</summary>\n\n{text}\n\n</details>" for name, text in folds)
        yield _text(f"{one.name}-help", text)


def _title(path: Path) -> str:
    return title(nbformat.read(path, as_version=4))


def _text(name: str, source: str) -> NotebookNode:
    return v4.new_markdown_cell(source, id=name)


def _code(name: str, source: str) -> NotebookNode:
    return v4.new_code_cell(source, id=name)
