"""How does the course look in a browser? A site by Sphinx, of the executed notebooks, the claims, data and package.

The sources are in `docs/`; what is generated joins them in `build/source/`. Nothing is executed.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import nbformat

from course_utils.claims import VERDICTS_TYPE
from course_utils.core import files
from course_utils.core.files import ROOT, write_whole
from course_utils.course import claims_page, readme, rooms
from course_utils.course.claims_page import table
from course_utils.course.sections import title

COPIED = ("CLAIMS.md", "data/README.md")
COST = re.compile(r"^\*Measured .*?: (?P<time>[^,]+), peak memory (?P<memory>[^*]+?)\.\*$", re.MULTILINE)
STAFF = ("core/", "course/")  # rooms that no reader opens


class SiteError(RuntimeError):
    """The site could not be built; the message says what to do."""


def name(path: Path) -> str:
    """What a notebook is called: with its folder, unless it is a lesson."""
    return path.stem if path.parent.name == "notebooks" else f"{path.parent.name}/{path.stem}"


def check() -> None:
    """Find out before the notebooks run whether what builds the site is installed.

    Raises:
        SiteError: it is not; says what to install.
    """
    if lacking := [package for package in ("sphinx", "myst_nb", "sphinx_book_theme") if not find_spec(package)]:
        raise SiteError(f"The site needs {', '.join(lacking)}; `pip install -e '.[site]'` brings it.")


def build(target: Path, executed: Mapping[Path, Path], root: Path = ROOT) -> None:
    """Write the site to `target`; any warning, such as that of a broken link, ends it.

    Args:
        executed: for notebooks that were just run, their executed copies; of the others the stored ones are shown.

    Raises:
        SiteError: Sphinx warned; its messages are above.
    """
    check()
    source = target.parent / "source"
    shutil.rmtree(target, ignore_errors=True)  # a page that is no more
    write_sources(source, executed, root)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(target.parent / "doctrees")]
    if subprocess.run([*command, "-b", "html", str(source), str(target)]).returncode:
        raise SiteError(f"The site was not built without warnings; they are above. Its sources are in {source}.")


def write_sources(source: Path, executed: Mapping[Path, Path], root: Path = ROOT) -> None:
    """Put together all that Sphinx reads."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "docs", source)
    for path in COPIED:
        write_whole(source / path, (root / path).read_bytes())
    for path in (root / "notebooks").glob("*.png"):
        write_whole(source / "notebooks" / path.name, path.read_bytes())
    every = [*files.notebooks(), *files.workbooks()]
    shown = [(path, nbformat.read(executed.get(path, path), as_version=4)) for path in every]
    write_whole(source / "generated" / "status.md", status(shown))  # before the verdicts are taken out
    for path, notebook in shown:
        for_reading(notebook)
        write_whole(source / path.relative_to(ROOT), nbformat.writes(notebook) + "\n")
    write_whole(source / "generated" / "surprises.md", readme.surprises(claims_page.collect(files.notebooks())))
    for file, text in api_pages((source / "api.md").read_text(encoding="utf-8")):
        write_whole(source / "api" / f"{file}.md", text)
    (source / "api.md").unlink()


def for_reading(notebook: nbformat.NotebookNode) -> None:
    """Give each cell's pictures the alt text that their outputs carry, in the place where the site looks for it.

    And take out the verdicts as data, which stand beside the table that shows them.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(VERDICTS_TYPE, None)
        outputs = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        said = [output.get("metadata", {}).get("image/png", {}).get("alt", "") for output in outputs]
        if any(said):
            cell.metadata["mystnb"] = {"image": {"alt": " ".join(filter(None, said))}}


def status(shown: Iterable[tuple[Path, nbformat.NotebookNode]]) -> str:
    """A table: what each notebook took when it was last run, its cells and its verdicts."""
    rows = []
    for path, notebook in shown:
        cost = COST.search(notebook.cells[0].source)
        given = claims_page.verdicts_of(notebook)
        rows.append(
            (
                f"[{title(notebook)}]({path.relative_to(ROOT).as_posix()})",
                cost["time"] if cost else "not measured",
                cost["memory"] if cost else "not measured",
                str(len(notebook.cells)),
                str(len(given)) if given else "none",
            )
        )
    return table(("notebook", "time on two CPU cores", "peak memory", "cells", "verdicts"), rows)


def api_pages(opening: str) -> Iterable[tuple[str, str]]:
    """A page a room, of the docstrings of what it hands on, and one that lists them: their names and texts."""
    doors = [(room, question) for room, question in rooms.rooms() if "/" not in room.rstrip("/") and room not in STAFF]
    modules = {room.removesuffix(".py").rstrip("/"): question for room, question in doors}
    for module in modules:
        directive = f"```{{eval-rst}}\n.. automodule:: course_utils.{module}\n   :members:\n```\n"
        yield module, f"# {module}\n\n{directive}"  # the docstring opens with the question
    tree = "\n".join(["```{toctree}", *(f"{each}: {question} <{each}>" for each, question in modules.items()), "```"])
    yield "index", f"{opening.rstrip()}\n\n{tree}\n"
