"""Does it hold over seeds and settings? A study is a grid of runs; each run leaves one line in `data/studies/`.

    python -m course_utils.studies              # all studies that are not complete yet
    python -m course_utils.studies reply_ranks  # one of them

A run that has its line is not repeated, so a study goes on where it was stopped, at whatever point that was.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from course_utils import chat, evaluation, loading, machine, memory, training
from course_utils.datafiles import data_dir, read_jsonl, write_whole
from course_utils.trees import DataError

Settings = dict[str, Any]
DATES_STEPS = 40
WATCHED = "model.layers.15.self_attn.q_proj"  # LoRA's paper looks at W_q of one layer, too (section 7)
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}  # Student's t, two-sided, by runs


def _path(name: str) -> Path:
    return data_dir() / "studies" / f"{name}.jsonl"


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
    write_whole(study.path, "".join(json.dumps(row) + "\n" for row in [*study.done(), line]))
    return line


def table(name: str) -> pd.DataFrame:
    """The records of a study, one run a row, settings and scores as columns.

    Raises:
        ValueError: no study of that name has records.
    """
    path = _path(name)
    if not path.is_file():
        raise ValueError(f"No records of a study {name!r}; choose from {', '.join(STUDIES)}.")
    return pd.DataFrame([{**row.pop("settings"), **row} for row in read_jsonl(path)])


def mean_and_interval(values: pd.Series | list[float]) -> tuple[float, float]:
    """Mean over runs and the half-width of its 95 % interval (Student's t over runs with different seeds)."""
    values = np.asarray(values, dtype=float)
    if len(values) not in T_95:
        raise ValueError(f"An interval needs {', '.join(map(str, T_95))} runs; there are {len(values)}.")
    return float(values.mean()), float(T_95[len(values)] * values.std(ddof=1) / np.sqrt(len(values)))


def summarize(runs: pd.DataFrame, by: str, *columns: str) -> pd.DataFrame:
    """Mean and half-width of the 95 % interval of each column (`name`, `name_half`), one row for each value of `by`."""
    rows = []
    for value, group in runs.groupby(by):
        row = {by: value}
        for name in columns:
            row[name], row[f"{name}_half"] = mean_and_interval(group[name])
        rows.append(row)
    return pd.DataFrame(rows)


def plus_minus(row: pd.Series, column: str, digits: int = 3) -> str:
    """A mean and its half-width out of a row of `summarize`, as text: 0.980 ± 0.012."""
    return f"{row[column]:.{digits}f} ± {row[f'{column}_half']:.{digits}f}"


def clearly_less(column: str, a: pd.Series, b: pd.Series) -> bool:
    """Whether a's interval lies wholly below b's; both are rows of `summarize`."""
    return bool(a[column] + a[f"{column}_half"] < b[column] - b[f"{column}_half"])


def reply_ranks(settings: Settings) -> dict[str, Any]:
    """LoRA on best-ranked or on worst-ranked replies to the same questions; measured on held-out best replies."""
    tokenizer = loading.load_tokenizer()
    trees = loading.load_conversations(split="train")
    pairs = [[chat.encode(chat.top_thread(t, worst=w)[:2], tokenizer) for w in (False, True)] for t in trees]
    column = ["best", "worst"].index(settings["replies"])
    examples = [pair[column] for pair in pairs if max(len(example["input_ids"]) for example in pair) <= 96]
    test = [chat.top_thread(tree)[:2] for tree in loading.load_conversations(split="test")]
    model = _with_lora(
        loading.load_model(precision=machine.profile("cpu").precision), settings["seed"], r=16, lora_alpha=32
    )
    history = training.fit(model, examples, steps=25, lr=1e-3, seed=settings["seed"])
    answers = evaluation.generate(model, tokenizer, [thread[:1] for thread in test], max_new_tokens=96)
    return {
        "examples": len(examples),
        "losses": [round(loss, 4) for loss in history.losses],
        "tokens": history.tokens,
        "answer_nll": evaluation.nll(model, [chat.encode(thread, tokenizer) for thread in test]).mean,
        "stop_rate": evaluation.stop_rate(answers),
    }


def dates(settings: Settings) -> dict[str, Any]:
    """One way of training on the dates, scored on held-out dates and, for what was forgotten, on general text.

    `method` is "base" (no training), "lora" (all linear layers, lora_alpha 32) or "full". The validation loss is there
    to choose a learning rate by; everything else is measured on the test split. A trained run also leaves the singular
    values of what it added to `WATCHED`.
    """
    tokenizer = loading.load_tokenizer()
    rows = {split: loading.load_task("dates", split) for split in ("train", "validation", "test")}
    encoded = {
        split: [chat.encode(chat.question(row["prompt"], row["answer"]), tokenizer) for row in rows[split]]
        for split in rows
    }
    model = loading.load_model(precision=machine.profile("cpu").precision)
    scores: dict[str, Any] = {}
    if settings["method"] != "base":
        before = model.get_submodule(WATCHED).weight.detach().clone()
        if settings["method"] == "lora":
            model = _with_lora(model, settings["seed"], r=settings["r"], lora_alpha=32)
        rest = {"lr": settings["lr"], "seed": settings["seed"]}
        history = training.fit(model, encoded["train"], steps=DATES_STEPS, batch_size=8, **rest)
        scores["losses"] = [round(loss, 4) for loss in history.losses]
        scores |= {"tokens": history.tokens, "train_seconds": round(history.seconds, 1)}
    questions = [chat.question(row["prompt"]) for row in rows["test"]]
    answers = evaluation.generate(model, tokenizer, questions, max_new_tokens=14, batch_size=60)
    scores |= {
        "accuracy": evaluation.accuracy(answers, [row["answer"] for row in rows["test"]]),
        "answer_nll": evaluation.nll(model, encoded["test"]).mean,
        "validation_nll": evaluation.nll(model, encoded["validation"]).mean,
        "general_nll": evaluation.general_nll(model, tokenizer, loading.load_passages()).mean,
    }
    if settings["method"] != "base":
        merged = model.merge_and_unload() if settings["method"] == "lora" else model
        scores["singular_values"] = _singular_values(merged.get_submodule(WATCHED).weight - before, settings.get("r"))
    return scores


def _singular_values(matrix: Any, rank: int | None = None) -> list[float]:
    """The singular values of a matrix (the first `rank` of them), largest first, to four digits."""
    import torch

    values = torch.linalg.svdvals(matrix.detach().float()).tolist()[:rank]
    return [float(f"{value:.4g}") for value in values]


def _with_lora(model: Any, seed: int, *, r: int, lora_alpha: float) -> Any:
    """The model with a fresh adapter on all its linear layers but the head."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


SEEDS = {"seed": [0, 1, 2]}
DATES = [
    {"method": ["base"]},
    {"method": ["lora"], "r": [16], "lr": [1e-4, 3e-4, 1e-3, 3e-3], **SEEDS},
    {"method": ["full"], "lr": [1e-5, 3e-5, 1e-4, 3e-4], **SEEDS},
    {"method": ["lora"], "r": [1, 4, 64], "lr": [1e-3], **SEEDS},
]
STUDIES = {
    study.name: study
    for study in [
        Study("dates", DATES, dates),
        Study("reply_ranks", [{**SEEDS, "replies": ["best", "worst"]}], reply_ranks),
    ]
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
