"""What do LoRA and full fine-tuning learn on the dates, and what do they forget? Over rates, ranks and seeds."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from course_utils import chat, datafiles, evaluation, loading, training
from course_utils.studies.records import Settings, Study

DATES_STEPS = 40
WATCHED = "model.layers.15.self_attn.q_proj"  # LoRA's paper looks at W_q of one layer, too (section 7)
SEEDS = {"seed": [0, 1, 2]}
GRIDS = [
    {"method": ["base"]},
    {"method": ["lora"], "r": [16], "lr": [1e-4, 3e-4, 1e-3, 3e-3], **SEEDS},
    {"method": ["full"], "lr": [1e-5, 3e-5, 1e-4, 3e-4], **SEEDS},
    {"method": ["lora"], "r": [1, 4, 64], "lr": [1e-3], **SEEDS},
]


def run(settings: Settings) -> dict[str, Any]:
    """One way of training on the dates, scored on held-out dates and, for what was forgotten, on general text.

    `method` is "base" (no training), "lora" (all linear layers, lora_alpha 32) or "full". The validation loss is there
    to choose a learning rate by; everything else is measured on the test split. A trained run also leaves the singular
    values of what it added to `WATCHED`.
    """
    tokenizer = loading.load_tokenizer()
    rows = {split: datafiles.load_task("dates", split) for split in ("train", "validation", "test")}
    encoded = {split: chat.encode_answers(rows[split], tokenizer) for split in rows}
    model = loading.load_model(precision="fp32")
    scores: dict[str, Any] = {}
    if settings["method"] != "base":
        before = model.get_submodule(WATCHED).weight.detach().clone()
        if settings["method"] == "lora":
            model = with_lora(model, settings["seed"], r=settings["r"], lora_alpha=32)
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
        "general_nll": evaluation.general_nll(model, tokenizer, datafiles.load_passages()).mean,
    }
    if settings["method"] != "base":
        merged = model.merge_and_unload() if settings["method"] == "lora" else model
        scores["singular_values"] = _singular_values(merged.get_submodule(WATCHED).weight - before, settings.get("r"))
    return scores


def _singular_values(matrix: Any, rank: int | None = None) -> list[float]:
    """The singular values of a matrix (the first `rank` of them), largest first, to four digits."""
    values = torch.linalg.svdvals(matrix.detach().float()).tolist()[:rank]
    return [float(f"{value:.4g}") for value in values]


def with_lora(model: Any, seed: int, *, r: int, lora_alpha: float) -> Any:
    """The model with a fresh adapter on all its linear layers but the head."""
    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


STUDY = Study("dates", GRIDS, run)
