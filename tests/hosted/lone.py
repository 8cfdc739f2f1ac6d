"""What does a notebook say that lies alone in an empty folder, run by the Python of another environment?"""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import CellExecutionError

from course_utils.course.claims_page import verdicts_of
from course_utils.course.execute import ThisPython, execute

STARTS = 3  # the first cell may ask for a restart of the kernel, as it would on the host
RESTART = "Restart the kernel"


@dataclass
class Found:
    """How it went: starts of the kernel, what it took in the last, and the verdicts that differ from the stored ones.

    `verdicts` counts those that were compared; in `different` stand the stored verdict and the one given here.
    """

    starts: int = 0
    seconds: int = 0
    peak_gb: float = 0.0
    verdicts: int = 0
    different: dict[str, list[str | None]] = field(default_factory=dict)
    failed: str = ""

    def as_row(self) -> dict[str, object]:
        return {name: value for name, value in asdict(self).items() if value not in ("", {})}


class Kernels(ThisPython):
    """The kernel `python3` is the Python of another environment."""

    def __init__(self, python: Path) -> None:
        super().__init__()
        self._python = str(python)

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        spec = super().get_kernel_spec(kernel_name)
        spec.argv[0] = self._python
        return spec


def said(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """The verdicts of a notebook by their ids; of exercises what the checks say, by cell."""
    checks = {
        cell.id: output.text.splitlines()[0]
        for cell in notebook.cells
        if cell.cell_type == "code" and "exercises.check(" in cell.source
        for output in cell.outputs
        if output.get("name") == "stdout" and output.text.strip()
    }
    return checks | {each.id: each.verdict for each in verdicts_of(notebook)}


def differences(stored: dict[str, str], here: dict[str, str]) -> dict[str, list[str | None]]:
    return {
        name: [stored.get(name), here.get(name)] for name in sorted(stored | here) if stored.get(name) != here.get(name)
    }


def run(path: Path, folder: Path, python: Path) -> Found:
    """Copy a notebook into an empty folder and run it there; again, if its first cell asks for a restart."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copy, found = folder / path.name, Found()
    shutil.copy(path, copy)
    while True:
        found.starts += 1
        try:
            notebook, done = execute(copy, Kernels(python))
            break
        except CellExecutionError as error:
            if RESTART not in str(error) or found.starts == STARTS:
                found.failed = f"{error.ename}: {error.evalue}".splitlines()[0]
                return found
    found.seconds, found.peak_gb = round(done.seconds), round(done.peak / 1e9, 2)
    stored = said(nbformat.read(path, as_version=4))
    found.verdicts, found.different = len(stored), differences(stored, said(notebook))
    return found
