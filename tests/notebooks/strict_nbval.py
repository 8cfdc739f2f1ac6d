"""Strict nbval: notebooks are compared cell by cell, with tolerance for floats and none for shortcuts.

What it adds to nbval (each point has a test in `test_strict_nbval.py`):

- text between numbers, integers, dates and versions must be equal; floats may differ by the cell's `rtol=...` tag
  (default 1e-6; at most 0.1, above 1e-2 with a `metadata.reason`), by 1e-12, or by one unit of the last digit where one
  of the two was printed with three or more digits (zeros in front do not count: so by 1 % at most);
- stderr (progress bars) and HTML are not compared;
- an unexecuted, stripped or reordered notebook is red: execution counts must be 1..n;
- opting out takes the tag `nbval-ignore-output` and `metadata.reason`; at most one code cell in ten may;
- packages are installed by the first cell alone, text outputs stay under 100 KB;
- a dead kernel fails at once, and after an exception the rest of that notebook is skipped.
"""

import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from queue import Empty

import nbformat
import nbval.kernel
import nbval.plugin
import pytest

from course_utils.claims import VERDICTS_TYPE
from course_utils.course.readme import TAG

RTOL, RTOL_WITHOUT_REASON, MAX_RTOL = 1e-6, 1e-2, 0.1
ATOL = Decimal("1e-12")
OPT_OUT = "nbval-ignore-output"
RTOL_TAG = re.compile(r"rtol=(\d+(?:\.\d+)?(?:e-?\d+)?)")
KNOWN_TAGS = re.compile(rf"{OPT_OUT}|raises-exception|{TAG}\w+|{RTOL_TAG.pattern}")
FLOAT = re.compile(r"[-+]?(?:\d*\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+)")
NUMBER = re.compile(rf"\d+(?:\.\d+){{2,}}|{FLOAT.pattern}|[-+]?\d+")  # 2.13.0 is no float; 1987-03-02 is three integers
NOT_COMPARED = ("stderr", "text/html", "image/svg+xml", VERDICTS_TYPE)  # a claim is compared where it is printed
MAX_TEXT_BYTES = 100_000


def same_text(reference: str, found: str, rtol: float = RTOL) -> bool:
    """Whether two outputs agree: the text between the numbers exactly, the numbers as `same_number` has it."""
    if NUMBER.split(reference) != NUMBER.split(found):
        return False
    pairs = zip(NUMBER.findall(reference), NUMBER.findall(found), strict=True)
    return all(same_number(a, b, rtol) for a, b in pairs)


def same_number(a: str, b: str, rtol: float) -> bool:
    """Whether two numbers, as they were printed, agree; only floats have a tolerance."""
    if a == b:
        return True
    if not (FLOAT.fullmatch(a) and FLOAT.fullmatch(b)):
        return False
    x, y = Decimal(a), Decimal(b)
    digits = max(len(number.as_tuple().digits) for number in (x, y))
    unit = Decimal(1).scaleb(min(number.as_tuple().exponent for number in (x, y))) if digits >= 3 else 0
    return abs(x - y) <= max(Decimal(rtol) * max(abs(x), abs(y)), ATOL, unit)


def tolerance(cell: nbformat.NotebookNode) -> float:
    """The relative tolerance of a cell's floats."""
    found = [match[1] for tag in cell.metadata.get("tags", []) if (match := RTOL_TAG.fullmatch(tag))]
    return float(found[0]) if found else RTOL


def structure_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """What is wrong with a notebook before any cell is run."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    problems = []
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        problems.append("the kernel is not 'python3'")
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        problems.append(f"not executed from top to bottom: execution counts are {counts}")
    opted_out = [cell for cell in cells if OPT_OUT in cell.metadata.get("tags", [])]
    if len(opted_out) * 10 > len(cells):
        problems.append(f"{len(opted_out)} of {len(cells)} code cells opt out of comparison; at most one in ten may")
    for number, cell in enumerate(cells, 1):
        problems += [f"code cell {number}: {problem}" for problem in cell_problems(cell, number)]
    return problems


def cell_problems(cell: nbformat.NotebookNode, number: int) -> list[str]:
    """What is wrong with one code cell."""
    tags, problems = cell.metadata.get("tags", []), []
    if OPT_OUT in tags and not cell.metadata.get("reason"):
        problems.append("opts out of comparison without a reason in its metadata")
    if (rtol := tolerance(cell)) > MAX_RTOL:
        problems.append(f"rtol={rtol:g} is over the ceiling of {MAX_RTOL:g}; print fewer digits or a verdict")
    elif rtol > RTOL_WITHOUT_REASON and not cell.metadata.get("reason"):
        problems.append(f"rtol={rtol:g} without a reason in its metadata; above {RTOL_WITHOUT_REASON:g} it needs one")
    problems += [f"unknown tag {tag!r}" for tag in tags if not KNOWN_TAGS.fullmatch(tag)]
    if re.search(r"#\s*(NBVAL|PYTEST_VALIDATE)_", cell.source):
        problems.append("an nbval marker in a comment; use a tag")
    if number > 1 and re.search(r"pip['\", ]+install", cell.source):
        problems.append("installs packages; only the first cell may")
    if any(output.output_type == "error" for output in cell.outputs) and "raises-exception" not in tags:
        problems.append("its stored output is an error")
    text = sum(len(str(output.get("text", output.get("data", {}).get("text/plain", "")))) for output in cell.outputs)
    if text > MAX_TEXT_BYTES:
        problems.append(f"{text} bytes of text output, more than {MAX_TEXT_BYTES}")
    return problems


class KernelDied(RuntimeError):
    """The kernel process is gone; nobody will answer."""


class WatchedKernel(nbval.kernel.RunningKernel):
    """A kernel whose death is noticed within a second rather than at the cell's timeout."""

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        deadline = time.monotonic() + (timeout or math.inf)
        while True:
            try:
                return super().await_reply(msg_id, timeout=1)
            except Empty:
                if not self.is_alive():
                    raise KernelDied from None
                if time.monotonic() > deadline:
                    raise


class Structure(pytest.Item):
    """The checks that need no kernel; the first item of every notebook."""

    def __init__(self, *, problems: list[str], **options: object) -> None:
        super().__init__(**options)
        self.problems = problems

    def runtest(self) -> None:
        assert not self.problems, "; ".join(self.problems)

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        return f"{self.path.name}: " + f"\n{self.path.name}: ".join(self.problems)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}::structure"


class StrictFile(nbval.plugin.IPyNbFile):
    """A notebook: its structure first, then its cells, in one kernel."""

    abandoned: str | None = None  # why the remaining cells are skipped

    def setup(self) -> None:
        """Start the kernel: in the environment that runs the tests, whatever kernels the user has."""
        timeout = self.config.option.nbval_kernel_startup_timeout
        self.kernel = WatchedKernel(nbval.kernel.CURRENT_ENV_KERNEL_NAME, str(self.path.parent), timeout)

    def collect(self) -> Iterator[pytest.Item]:
        self.skip_compare += NOT_COMPARED
        yield Structure.from_parent(
            self, name="structure", problems=structure_problems(nbformat.read(self.path, as_version=4))
        )
        for item in super().collect():
            fields = {"cell_num": item.cell_num, "cell": item.cell, "options": item.options}
            yield StrictCell.from_parent(self, name=item.name, **fields)


class StrictCell(nbval.plugin.IPyNbCell):
    """A code cell, run and compared."""

    comparison_traceback: Sequence[str] = ()  # the differences, once the outputs were compared

    def runtest(self) -> None:
        if self.parent.abandoned:
            pytest.skip(self.parent.abandoned)
        try:
            super().runtest()
        except KernelDied:
            self.parent.abandoned = "the kernel died in an earlier cell"
            self.raise_cell_error("The kernel died while running this cell (out of memory?)")
        except nbval.plugin.NbCellError:
            if not self.comparison_traceback:
                self.parent.abandoned = "an earlier cell failed"
            raise

    def compare_outputs(self, test, ref, skip_compare=None) -> bool:
        rtol = tolerance(self.cell)
        expected, found = self.by_kind(ref), self.by_kind(test)
        self.comparison_traceback = []
        for kind in sorted(expected.keys() | found.keys()):
            if len(expected[kind]) != len(found[kind]):
                self.comparison_traceback.append(
                    f"{kind}: {len(expected[kind])} stored outputs, {len(found[kind])} now"
                )
            for old, new in zip(expected[kind], found[kind], strict=False):
                if not same_text(old, new, rtol):
                    self.comparison_traceback.append(f"{kind}, rtol {rtol:g}:\n--- stored\n{old}\n--- now\n{new}")
        return not self.comparison_traceback

    def by_kind(self, outputs) -> dict[str, list[str]]:
        """The texts to compare, by stream name, MIME type or field."""
        texts = defaultdict(list)
        for output in nbval.plugin.transform_streams_for_comparison(outputs):
            for key, value in {**output, **output.get("data", {})}.items():
                if key != "data" and key not in self.parent.skip_compare:
                    texts[key].append(str(value))
        return texts


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector):
    """Put the strict class in place of nbval's."""
    found = yield
    return [StrictFile.from_parent(parent, path=f.path) if type(f) is nbval.plugin.IPyNbFile else f for f in found]
