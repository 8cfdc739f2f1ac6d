"""Which runs of the lessons are kept for a demo, and how are they made? `python -m tests.kept_runs [NAME …]`

Each is the lesson's own cell: the notebook is run up to it, and what it has trained is written down. In a demo the
same cell is run with `kept` in place of the training; the instructor's pages say so.
"""

import sys
from dataclasses import dataclass

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

from course_utils.core.files import notebook
from course_utils.course.execute import ThisPython


@dataclass(frozen=True)
class Kept:
    """A run: its lesson, the cell that trains, what is written there, and what is written there in a demo."""

    lesson: str
    cell: str
    trains: str
    model: str
    extra: str = ""

    def demo(self, name: str) -> str:
        """What the cell says in a demo, in place of `trains`."""
        return f'training.kept({self.model}, "{name}")' + self.extra


RUNS = {
    "dates": Kept("01_lora", "044ef435", 'training.fit(model, encoded["train"], studies.DATES)', "model"),
    "dates-nf4": Kept("03_qlora", "train-recipe", 'training.fit(model, splits["train"], recipe)', "model"),
    "conversations": Kept(
        "04_guanaco_sft",
        "e4a0003d",
        "training.run(trainer)",
        "tuned",
        '\nseen = [{"step": 12, "loss": evaluation.nll(tuned, validation).mean}]',
    ),
}


def run_to(name: str, source: str, behind: int = 0) -> list[nbformat.NotebookNode]:
    """Run a lesson up to the cell of a kept run and so many code cells behind it, with `source` in that cell.

    Returns the executed cells from that one on.
    """
    kept = RUNS[name]
    lesson = nbformat.read(notebook(kept.lesson), as_version=4)
    place = next(index for index, cell in enumerate(lesson.cells) if cell.id == kept.cell)
    later = [index for index, cell in enumerate(lesson.cells) if index > place and cell.cell_type == "code"][:behind]
    lesson.cells = lesson.cells[: max([place, *later]) + 1]
    lesson.cells[place].source = source
    kernel, folder = AsyncKernelManager(kernel_spec_manager=ThisPython()), notebook(kept.lesson).parent
    NotebookClient(lesson, km=kernel, timeout=1800, resources={"metadata": {"path": folder}}).execute(cleanup_kc=True)
    return lesson.cells[place:]


def source(name: str) -> str:
    """The cell, as it stands in the lesson."""
    kept = RUNS[name]
    cells = nbformat.read(notebook(kept.lesson), as_version=4).cells
    return next(cell.source for cell in cells if cell.id == kept.cell)


def main(names: list[str]) -> None:
    for name in names or RUNS:
        kept = RUNS[name]
        run_to(name, f'{source(name)}\nprint(training.keep({kept.model}, history, "{name}"))')


if __name__ == "__main__":
    main(sys.argv[1:])
