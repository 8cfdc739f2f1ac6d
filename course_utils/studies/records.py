"""What makes two runs the same run, which of them are done, and what did each leave? One line a run.

The lines are in `data/studies/`. A run that has its line is not repeated, so a study goes on where it was stopped, at
whatever point that was. Processes that work on the same study take turns, run by run.
"""

import functools
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from course_utils import machine, memory
from course_utils.core import files
from course_utils.core.rows import fail, read_rows
from course_utils.training import Recipe

IDENTITY = ("recipe", "scoring", "data_sha256")  # what makes a run this run; all else of a line is score or provenance
PROVENANCE = ("seconds", "peak_bytes", "machine")
AGAIN = "delete the line and run the study again"


@dataclass(frozen=True)
class Study:
    """Runs that differ in some fields of their recipes, and the function that makes one and returns its scores.

    `scoring` holds the constants that decide what is measured, `reads` the files below `data/` that a run reads: a
    change of either makes other runs. `minutes` is what a run is expected to take, as long as no record says it.
    """

    name: str
    recipes: list[Recipe]
    run: Callable[[Recipe], dict[str, Any]]
    scoring: dict[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    minutes: float | None = None

    @property
    def path(self) -> Path:
        return _path(self.name)

    def done(self) -> list[dict[str, Any]]:
        """The records there are; a DataError names a line that is not a whole one."""
        return _records(self.path)

    def open(self) -> list[Recipe]:
        """Recipes without a record."""
        recorded = [_identity(line) for line in self.done()]
        return [recipe for recipe in self.recipes if self.identity(recipe) not in recorded]

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        """What makes a run of this study another than all others, as a line states it."""
        return {"recipe": asdict(recipe), "scoring": self.scoring, "data_sha256": _sha256(self.reads)}


def grid(base: Recipe, **values: list[Any]) -> list[Recipe]:
    """The recipe with all combinations of these values of its fields, the last field varying fastest."""
    return [replace(base, **dict(zip(values, chosen, strict=True))) for chosen in itertools.product(*values.values())]


def record(study: Study, recipe: Recipe) -> dict[str, Any]:
    """Make one run and add its line to the file, whole or not at all; or return the line that is there already.

    The study's lock is held meanwhile: of two processes one waits, and then finds the other's line. The operating
    system frees the lock of a process that dies.

    Raises:
        ValueError: a score is missing or not finite; nothing is recorded.
        DataError: a line of the file is not a whole record.
    """
    study.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(study.path.with_suffix(".lock")):
        lines, identity = study.done(), study.identity(recipe)
        if identity in (there := [_identity(line) for line in lines]):
            return lines[there.index(identity)]
        start = time.perf_counter()
        with memory.measure() as peak:
            scores = study.run(recipe)
        for name, score in scores.items():
            if not _finite(score):
                raise ValueError(
                    f"{study.name}, {recipe!r}: its score {name!r} is {score!r}, so nothing was recorded. Change the "
                    "recipe (a lower learning rate, say) or what is measured, and run the study again."
                )
        cost = {"seconds": round(time.perf_counter() - start, 1), "peak_bytes": peak.peak}
        line = {**identity, **scores, **cost, "machine": machine.describe()}
        files.write_whole(study.path, "".join(json.dumps(row) + "\n" for row in [*lines, line]))
    return line


def table(name: str) -> pd.DataFrame:
    """The records of a study, one run a row; NaN where a kind of run has no such field.

    Columns: the recipe's fields with its `method` (and what its adapter is set to: `r`, `lora_alpha`, ...), the
    scores, and what the run cost.

    Raises:
        ValueError: no study of that name has records.
        DataError: a line is not a whole record, or was not scored as the first one was; names file, line and field.
    """
    path = _path(name)
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.jsonl"))) or "none"
        raise ValueError(
            f"No study {name!r} has records; those that have: {there}. What is missing is run by "
            "`python -m course_utils.studies`."
        )
    lines = _records(path)
    for number, line in enumerate(lines, 1):
        for part in ("scoring", "data_sha256"):
            if line[part] != lines[0][part]:
                fail(f"{path.name}, record {number}", part, f"not that of record 1, so they do not compare; {AGAIN}")
    return pd.DataFrame([_row(line) for line in lines])


def subsets(runs: pd.DataFrame) -> list[str | None]:
    """The subset of each run of a table, as its recipe names it: pandas has NaN for None."""
    return [subset if isinstance(subset, str) else None for subset in runs["subset"]]


def _row(line: dict[str, Any]) -> dict[str, Any]:
    recipe = Recipe(**line["recipe"])
    settings = asdict(recipe) | {"method": recipe.method} | (recipe.adapter or {})
    return settings | {name: value for name, value in line.items() if name not in IDENTITY}


def _path(name: str) -> Path:
    return files.data_dir() / "studies" / f"{name}.jsonl"


def _identity(line: dict[str, Any]) -> dict[str, Any]:
    return {part: line[part] for part in IDENTITY}


def _records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, each with finite scores, and with all that runs of its method have."""
    placed = list(read_rows(path)) if path.is_file() else []
    scores: dict[str, set[str]] = {}
    for place, line in placed:
        _check(place, line)
        scores.setdefault(Recipe(**line["recipe"]).method, set()).update(line)
    for place, line in placed:
        if lost := sorted(scores[Recipe(**line["recipe"]).method] - set(line)):
            fail(place, lost[0], f"missing, but other runs of its method have it; {AGAIN}")
    return [line for _, line in placed]


def _check(place: str, line: Any) -> None:
    """Refuse what is no whole record: all fields of a recipe, no others, and finite scores."""
    if not isinstance(line, dict) or not isinstance(line.get("recipe"), dict):
        fail(place, "recipe", f"missing; {AGAIN}")
    wanted = {each.name for each in fields(Recipe)}
    for name in sorted(wanted ^ set(line["recipe"])):
        why = "missing" if name in wanted else "no field of training.Recipe"
        fail(place, f"recipe.{name}", f"{why}; a recipe is stored whole; {AGAIN}")
    for name in (*IDENTITY, *PROVENANCE):
        if name not in line:
            fail(place, name, f"missing; {AGAIN}")
    for name, value in line.items():
        if name not in IDENTITY and not _finite(value):
            fail(place, name, f"not a finite number; {AGAIN}")


def _finite(score: Any) -> bool:
    """Whether a score is there, and all numbers in it are finite."""
    if isinstance(score, list):
        return all(map(_finite, score))
    return score is not None and not (isinstance(score, float) and not math.isfinite(score))


def _sha256(reads: tuple[str, ...]) -> str:
    """Of the rows of these files below `data/`, as values: line endings and the order of keys do not count."""
    paths = [files.data_dir() / name for name in reads]
    return _hash(tuple(paths), tuple(path.stat().st_mtime_ns for path in paths))


@functools.cache
def _hash(paths: tuple[Path, ...], written: tuple[int, ...]) -> str:
    """`written` is there for the cache: a file that was written to is read again."""
    rows = [[row for _, row in read_rows(path)] for path in paths]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
