"""Which title and sections has a notebook, and how many seconds does each section run?"""

import json
import re
from datetime import datetime
from pathlib import Path

from nbformat import NotebookNode

from course_utils.core.files import ROOT, write_whole

RECORD = ROOT / "instructors" / "seconds.json"


def title(notebook: NotebookNode) -> str:
    """The words of its first line."""
    return notebook.cells[0].source.partition("\n")[0].lstrip("# ")


def sections(notebook: NotebookNode) -> dict[str, list[NotebookNode]]:
    """The code cells below each heading of the second level, by its words and in order; none below one of prose."""
    found: dict[str, list[NotebookNode]] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found |= {title: [] for title in re.findall(r"^## (.+)$", cell.source, re.MULTILINE)}
        elif found:
            next(reversed(found.values())).append(cell)
    return found


def seconds(notebook: NotebookNode) -> dict[str, float]:
    """What each section with code took, in a notebook that nbclient has just run."""
    return {title: round(sum(map(_took, cells)), 1) for title, cells in sections(notebook).items() if cells}


def _took(cell: NotebookNode) -> float:
    times = cell.metadata.get("execution")
    if not times:  # an empty cell is not run
        return 0.0
    began, ended = (datetime.fromisoformat(times[key]) for key in ("iopub.status.busy", "shell.execute_reply"))
    return (ended - began).total_seconds()


def record(path: Path = RECORD) -> dict[str, dict[str, float]]:
    """The seconds of each section of each notebook that was executed in place."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep(notebook: str, seconds: dict[str, float], path: Path = RECORD) -> None:
    """Put the seconds of a notebook's sections into the record, in place of those of an earlier run."""
    known = dict(sorted((record(path) | {notebook: seconds}).items()))
    write_whole(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
