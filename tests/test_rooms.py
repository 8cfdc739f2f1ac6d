"""The house keeps its rule: doors that notebooks open, imports that run downwards, one question a file."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest

from course_utils.core.files import PACKAGE, ROOT, notebooks, workbooks
from course_utils.course import marks, rooms

FLOORS = (  # from the cellar up; a room imports only from floors below its own, and rooms of one floor not each other
    "core machine intervals plots",
    "datafiles bootstrap lessons",
    "chat loading claims",
    "batches memory chat_ui lit",
    "training evaluation",
    "studies tournament",
    "exercises",
    "course",
)
FLOOR = {room: number for number, names in enumerate(FLOORS) for room in names.split()}
FREE = {"intervals", "plots"}  # they need nothing of the course
STAFF = {"core", "course"}  # no notebook opens them
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem != "__init__"]
NAMES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imported(source: str) -> set[str]:
    """The modules of the course that a text imports, at its top or further down."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("course_utils"):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in NAMES else node.module for name in inside}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("course_utils")}
    return found - {"course_utils"}


IMPORTS = {name: imported(path.read_text(encoding="utf-8")) for name, path in NAMES.items()}
OPENED = {
    name
    for path in (*notebooks(), *workbooks())
    for cell in nbformat.read(path, as_version=4).cells
    if cell.cell_type == "code"
    for name in imported(cell.source)
}


def room(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("name", NAMES)
def test_imports_run_downwards(name):
    wrong = [other for other in IMPORTS[name] if room(other) != room(name) and FLOOR[room(other)] >= FLOOR[room(name)]]
    assert wrong == []
    assert room(name) not in FREE or {room(other) for other in IMPORTS[name]} <= {room(name)}


def test_imports_have_no_circle():
    files = {name: {other for other in IMPORTS[name] if NAMES[other].stem != "__init__"} for name in NAMES}
    assert len(list(TopologicalSorter(files).static_order())) == len(NAMES)


def test_the_doors_are_what_notebooks_open_and_notebooks_open_doors_alone():
    assert {room(name) for name in NAMES} - STAFF == {room(name) for name in OPENED}
    assert [name for name in OPENED if name.count(".") > 1] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_opens_with_its_question_and_is_read_in_one_sitting(path):
    assert rooms.question(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_wings_door_only_hands_names_on(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)) for node in ast.walk(tree))
    others = [other for other in path.parent.glob("*.py") if other.stem != "__init__"]
    assert len(others) > 1, "a wing is made when its second file is written"


def test_a_file_without_a_question_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "ROOT", tmp_path)
    path = Path(tmp_path / "made.py")
    path.write_text('"""Helpers."""\n', encoding="utf-8")
    with pytest.raises(ValueError, match="made.py: its docstring has to open with the question"):
        rooms.question(path)


def test_the_map_is_up_to_date():
    """If not: `make docs` writes it."""
    assert marks.between(ROOT / "CONTRIBUTING.md", "rooms") == rooms.markdown()
