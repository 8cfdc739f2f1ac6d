"""Does it hold over seeds and settings? A study is a grid of runs; each run leaves one line in `data/studies/`.

    python -m course_utils.studies              # all studies that are not complete yet
    python -m course_utils.studies reply_ranks  # one of them

A run that has its line is not repeated, so a study goes on where it was stopped, at whatever point that was.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from course_utils import chat, evaluation, loading, machine, memory, training
from course_utils.datafiles import data_dir, read_jsonl
from course_utils.trees import DataError

Settings = dict[str, Any]
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}  # Student's t, two-sided, by runs


@dataclass(frozen=True)
class Study:
    """A grid of settings (every combination is one run), and the function that makes a run and returns its scores."""

    name: str
    grid: dict[str, list[Any]]
    run: Callable[[Settings], dict[str, Any]]

    @property
    def settings(self) -> list[Settings]:
        """All combinations, the last key varying fastest."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    @property
    def path(self) -> Path:
        return data_dir() / "studies" / f"{self.name}.jsonl"

    def done(self) -> list[dict[str, Any]]:
        """The records there are.

        Raises:
            DataError: a line is not a record.
        """
        if not self.path.is_file():
            return []
        records = list(read_jsonl(self.path))
        for line, record in enumerate(records, 1):
            if not isinstance(record, dict) or "settings" not in record:
                raise DataError(f"{self.path.name}, line {line}, field 'settings': missing")
        return records

    def open(self) -> list[Settings]:
        """Settings without a record."""
        recorded = [record["settings"] for record in self.done()]
        return [settings for settings in self.settings if settings not in recorded]


def record(study: Study, settings: Settings) -> dict[str, Any]:
    """Make one run and add its line to the file, whole or not at all."""
    start = time.perf_counter()
    with memory.measure() as peak:
        scores = study.run(settings)
    line = {
        "settings": settings,
        **scores,
        "seconds": round(time.perf_counter() - start, 1),
        "peak_bytes": peak.peak,
        "machine": machine.describe(),
    }
    study.path.parent.mkdir(exist_ok=True)
    partial = study.path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in [*study.done(), line]), encoding="utf-8")
    os.replace(partial, study.path)
    return line


def table(name: str) -> pd.DataFrame:
    """The records of a study, one run a row, settings and scores as columns.

    Raises:
        ValueError: no study of that name has records.
    """
    path = data_dir() / "studies" / f"{name}.jsonl"
    if not path.is_file():
        raise ValueError(f"No records of a study {name!r}; choose from {', '.join(STUDIES)}.")
    return pd.DataFrame([{**row.pop("settings"), **row} for row in read_jsonl(path)])


def mean_and_interval(values: pd.Series | list[float]) -> tuple[float, float]:
    """Mean over runs and the half-width of its 95 % interval (Student's t over runs with different seeds)."""
    values = np.asarray(values, dtype=float)
    if len(values) not in T_95:
        raise ValueError(f"An interval needs {', '.join(map(str, T_95))} runs; there are {len(values)}.")
    return float(values.mean()), float(T_95[len(values)] * values.std(ddof=1) / np.sqrt(len(values)))


def reply_ranks(settings: Settings) -> dict[str, Any]:
    """LoRA on best-ranked or on worst-ranked replies to the same questions; measured on held-out best replies."""
    tokenizer = loading.load_tokenizer()
    trees = loading.load_conversations(split="train")
    pairs = [[chat.encode(chat.top_thread(t, worst=w)[:2], tokenizer) for w in (False, True)] for t in trees]
    column = ["best", "worst"].index(settings["replies"])
    examples = [pair[column] for pair in pairs if max(len(example["input_ids"]) for example in pair) <= 96]
    test = [chat.top_thread(tree)[:2] for tree in loading.load_conversations(split="test")]
    model, losses = _train_lora(examples, settings["seed"], r=16, lr=1e-3, steps=25)
    answers = evaluation.generate(model, tokenizer, [thread[:1] for thread in test], max_new_tokens=96)
    return {
        "examples": len(examples),
        "losses": losses,
        "answer_nll": evaluation.nll(model, [chat.encode(thread, tokenizer) for thread in test]).mean,
        "stop_rate": evaluation.stop_rate(answers),
    }


def _train_lora(examples: list[chat.Example], seed: int, *, r: int, lr: float, steps: int) -> tuple[Any, list[float]]:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(loading.load_model(precision=machine.profile("cpu").precision), config)
    history = training.fit(model, examples, steps=steps, lr=lr, seed=seed)
    return model, [round(loss, 4) for loss in history.losses]


STUDIES = {
    study.name: study
    for study in [Study("reply_ranks", {"seed": [0, 1, 2], "replies": ["best", "worst"]}, reply_ranks)]
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m course_utils.studies", description="Run studies.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(STUDIES)}; all by default")
    names = parser.parse_args().names or list(STUDIES)
    if unknown := set(names) - set(STUDIES):
        parser.error(f"unknown study {', '.join(sorted(unknown))}; choose from {', '.join(STUDIES)}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=True)) as progress:
        for study in (STUDIES[name] for name in names):
            waiting = study.open()
            task = progress.add_task(
                study.name, total=len(study.settings), completed=len(study.settings) - len(waiting)
            )
            for settings in waiting:
                record(study, settings)
                progress.advance(task)


if __name__ == "__main__":
    main()
