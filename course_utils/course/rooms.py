"""Which room answers which question? The map of `course_utils`, made from the first sentence of each file."""

import ast
import re
from pathlib import Path

from course_utils.core.files import PACKAGE, ROOT


def question(path: Path) -> str:
    """The first sentence of a file's docstring.

    Raises:
        ValueError: it is no question.
    """
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    found = re.match(r"[^.?!]*\?", said)
    if path.parent.name in ("core", "course") and path.stem == "__init__":  # staff: rooms that no notebook opens
        found = re.match(r"[^.?!]*\.", said)
    if not found:
        raise ValueError(f"{path.relative_to(ROOT)}: its docstring has to open with the question that it answers.")
    return " ".join(found[0].split())


def rooms() -> list[tuple[str, str]]:
    """The files of the package with their questions, by name: doors, wings and what lies in them, a shelf as one."""
    doors = [path for path in PACKAGE.iterdir() if path.suffix == ".py" and path.stem != "__init__"]
    wings = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    found = []
    for path in sorted([*doors, *wings], key=lambda path: path.stem):
        if path.is_file():
            found.append((path.name, question(path)))
            continue
        found.append((f"{path.name}/", question(path / "__init__.py")))
        inside = sorted(other for other in path.glob("*.py") if other.stem != "__init__")
        found += [(f"{path.name}/{other.name}", question(other)) for other in inside]
        shelves = sorted(path.glob("*/__init__.py"))  # whose files are told apart by what they are called
        found += [(f"{path.name}/{other.parent.name}/", question(other)) for other in shelves]
    return found


def markdown() -> str:
    """The map as a table."""
    rows = [f"| `{name}` | {question} |" for name, question in rooms()]
    return "\n".join(["| room | its question |", "|---|---|", *rows]) + "\n"
