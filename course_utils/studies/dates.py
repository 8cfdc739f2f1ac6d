"""What do LoRA and full fine-tuning learn on the dates, and what do they forget? Over rates, ranks and seeds."""

from dataclasses import replace
from typing import Any

import torch

from course_utils import chat, datafiles, evaluation, loading, training
from course_utils.studies.records import Study, grid
from course_utils.training import LORA, Recipe

DATES = Recipe(adapter=LORA, data="dates", lr=1e-3, steps=40)
FULL = replace(DATES, adapter=None)
SEEDS = [0, 1, 2]
WATCHED = "model.layers.15.self_attn.q_proj"  # LoRA's paper looks at W_q of one layer, too (section 7)
SCORING = {"max_new_tokens": 14, "watched": WATCHED}


def run(recipe: Recipe) -> dict[str, Any]:
    """Scores on held-out dates and, for what was forgotten, on general text.

    The validation loss is there to choose a learning rate by; everything else is measured on the test split. A trained
    run also leaves the singular values of what it added to `WATCHED`.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    rows = {split: datafiles.load_task(recipe.data, split) for split in datafiles.SPLITS}
    encoded = {split: chat.encode_answers(rows[split], tokenizer, recipe.template) for split in rows}
    model = training.prepare_model(recipe)
    before = _watched(model).clone()
    scores: dict[str, Any] = {}
    if recipe.steps:
        history = training.fit(model, encoded["train"], recipe)
        scores["losses"] = [round(loss, 4) for loss in history.losses]
        scores |= {"tokens": history.tokens, "train_seconds": round(history.seconds, 1)}
    questions = [chat.question(row["prompt"]) for row in rows["test"]]
    answers = evaluation.generate(model, tokenizer, questions, max_new_tokens=SCORING["max_new_tokens"])
    scores |= {
        "accuracy": evaluation.accuracy(answers, [row["answer"] for row in rows["test"]]),
        "answer_nll": evaluation.nll(model, encoded["test"]).mean,
        "validation_nll": evaluation.nll(model, encoded["validation"]).mean,
        "general_nll": evaluation.general_nll(model, tokenizer, datafiles.load_passages()).mean,
    }
    if recipe.steps:
        added = _watched(model.merge_and_unload() if recipe.adapter else model) - before
        scores["singular_values"] = _singular_values(added, (recipe.adapter or {}).get("r"))
    return scores


def _watched(model: torch.nn.Module) -> torch.Tensor:
    """The watched matrix, without what an adapter would add to it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.get_submodule(WATCHED).weight.detach()


def _singular_values(matrix: torch.Tensor, rank: int | None = None) -> list[float]:
    """The singular values of a matrix (the first `rank` of them), largest first, to four digits."""
    values = torch.linalg.svdvals(matrix.float()).tolist()[:rank]
    return [float(f"{value:.4g}") for value in values]


STUDY = Study(
    "dates",
    [
        replace(FULL, steps=0),
        *grid(DATES, lr=[1e-4, 3e-4, 1e-3, 3e-3], seed=SEEDS),
        *grid(FULL, lr=[1e-5, 3e-5, 1e-4, 3e-4], seed=SEEDS),
        *grid(DATES, adapter=[{**LORA, "r": r} for r in (1, 4, 64)], seed=SEEDS),
    ],
    run,
    SCORING,
    ("tasks/dates.jsonl", "passages.jsonl"),
)
