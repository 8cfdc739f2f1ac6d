"""Does it hold over seeds and settings? A study is a grid of runs; each run leaves one line in `data/studies/`.

    python -m course_utils.studies              # all studies that are not complete yet
    python -m course_utils.studies reply_ranks  # one of them

A run that has its line is not repeated, so a study goes on where it was stopped, at whatever point that was. Processes
that work on the same study take turns, run by run.
"""

import argparse
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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from course_utils import chat, console, evaluation, loading, machine, memory, training
from course_utils.datafiles import data_dir, write_whole
from course_utils.records import fail, read_records

Settings = dict[str, Any]
DATES_STEPS = 40
WATCHED = "model.layers.15.self_attn.q_proj"  # LoRA's paper looks at W_q of one layer, too (section 7)


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
        write_whole(study.path, "".join(json.dumps(row) + "\n" for row in [*lines, line]))
    return line


def table(name: str) -> pd.DataFrame:
    """The records of a study, one run a row, settings and scores as columns; NaN where a kind of run has no such field.

    Raises:
        ValueError: no study of that name has records.
        DataError: a line is not a whole record; names file, line and field.
    """
    path = _path(name)
    if not path.is_file():
        if name in STUDIES:
            raise ValueError(f"{name!r} has no records yet: run `python -m course_utils.studies {name}`.")
        raise ValueError(f"Unknown study {name!r}; choose from {', '.join(STUDIES)}.")
    records = _records(path)
    return pd.DataFrame([record.pop("settings") | record for record in records])


def _records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, each with finite scores, and with all that runs of its kind (with its settings) have."""
    placed = list(read_records(path)) if path.is_file() else []
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


def reply_ranks(settings: Settings) -> dict[str, Any]:
    """LoRA on best-ranked or on worst-ranked replies to the same questions; measured on held-out best replies."""
    tokenizer = loading.load_tokenizer()
    trees = loading.load_conversations(split="train")
    pairs = [[chat.encode(chat.top_thread(t, worst=w)[:2], tokenizer) for w in (False, True)] for t in trees]
    column = ["best", "worst"].index(settings["replies"])
    examples = [pair[column] for pair in pairs if max(len(example["input_ids"]) for example in pair) <= 96]
    test = [chat.top_thread(tree)[:2] for tree in loading.load_conversations(split="test")]
    model = _with_lora(loading.load_model(precision="fp32"), settings["seed"], r=16, lora_alpha=32)
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
    model = loading.load_model(precision="fp32")
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
    console.accept_all()
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
