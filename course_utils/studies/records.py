"""Which runs of a study are done, and what did each leave? One line a run, in `data/studies/`.

A run that has its line is not repeated, so a study goes on where it was stopped, at whatever point that was. Processes
that work on the same study take turns, run by run.
"""

import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from course_utils import machine, memory
from course_utils.core import files
from course_utils.core.rows import fail, read_rows

Settings = dict[str, Any]


def _path(name: str) -> Path:
    return files.data_dir() / "studies" / f"{name}.jsonl"


@dataclass(frozen=True)
class Study:
    """Grids of settings, every combination in one of them a run, and the function that makes a run: its scores."""

    name: str
    grids: list[dict[str, list[Any]]]
    run: Callable[[Settings], dict[str, Any]]

    @property
    def settings(self) -> list[Settings]:
        """All combinations, grid by grid, the last key varying fastest."""
        return [
            dict(zip(grid, values, strict=True)) for grid in self.grids for values in itertools.product(*grid.values())
        ]

    @property
    def path(self) -> Path:
        return _path(self.name)

    def done(self) -> list[dict[str, Any]]:
        """The records there are; a DataError names a line that is not a whole one."""
        return _records(self.path)

    def open(self) -> list[Settings]:
        """Settings without a record."""
        recorded = [record["settings"] for record in self.done()]
        return [settings for settings in self.settings if settings not in recorded]


def record(study: Study, settings: Settings) -> dict[str, Any]:
    """Make one run and add its line to the file, whole or not at all; or return the line that is there already.

    The study's lock is held meanwhile: of two processes one waits, and then finds the other's line. The operating
    system frees the lock of a process that dies.

    Raises:
        ValueError: a score is missing or not finite; nothing is recorded.
        DataError: a line of the file is not a whole record.
    """
    study.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(study.path.with_suffix(".lock")):
        lines = study.done()
        if settings in (there := [line["settings"] for line in lines]):
            return lines[there.index(settings)]
        start = time.perf_counter()
        with memory.measure() as peak:
            scores = study.run(settings)
        for name, score in scores.items():
            if not _finite(score):
                raise ValueError(
                    f"{study.name}, {settings}: its score {name!r} is {score!r}, so nothing was recorded. Change the "
                    "settings (a lower learning rate, say) or what is measured, and run the study again."
                )
        cost = {"seconds": round(time.perf_counter() - start, 1), "peak_bytes": peak.peak}
        line = {"settings": settings, **scores, **cost, "machine": machine.describe()}
        files.write_whole(study.path, "".join(json.dumps(row) + "\n" for row in [*lines, line]))
    return line


def table(name: str) -> pd.DataFrame:
    """The records of a study, one run a row, settings and scores as columns; NaN where a kind of run has no such field.

    Raises:
        ValueError: no study of that name has records.
        DataError: a line is not a whole record; names file, line and field.
    """
    path = _path(name)
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.jsonl"))) or "none"
        raise ValueError(
            f"No study {name!r} has records; those that have: {there}. What is missing is run by "
            "`python -m course_utils.studies`."
        )
    records = _records(path)
    return pd.DataFrame([record.pop("settings") | record for record in records])


def _records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, each with finite scores, and with all that runs of its kind (with its settings) have."""
    placed = list(read_rows(path)) if path.is_file() else []
    again = "delete the line and run the study again"
    fields: dict[frozenset[str], set[str]] = {}
    for place, record in placed:
        if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
            fail(place, "settings", f"missing; {again}")
        for name, value in record.items():
            if not _finite(value):
                fail(place, name, f"not a finite number; {again}")
        fields.setdefault(frozenset(record["settings"]), set()).update(record)
    for place, record in placed:
        if lost := sorted(fields[frozenset(record["settings"])] - set(record)):
            fail(place, lost[0], f"missing, but other runs of its kind have it; {again}")
    return [record for _, record in placed]


def _finite(score: Any) -> bool:
    """Whether a score is there, and all numbers in it are finite."""
    if isinstance(score, list):
        return all(map(_finite, score))
    return score is not None and not (isinstance(score, float) and not math.isfinite(score))
