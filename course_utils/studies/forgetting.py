"""What is forgotten while something is learned, and what foretells it? LoRA and full fine-tuning, on the way."""

from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat, datafiles, loading, training
from course_utils.studies import probe, records
from course_utils.studies.records import Study, grid
from course_utils.training import LORA, Recipe

DATES = Recipe(adapter=LORA, data="dates", lr=1e-3, steps=80)
ADDITION = replace(DATES, data="addition", steps=160)
SEEDS = [0, 1, 2]
MATRICES = "_proj.weight"  # the 210 that LoRA adapts; norms and the head, which is the embedding, are left
SCORING = {
    "checkpoints": {"dates": [5, 10, 20, 40, 80], "addition": [40, 80, 160]},
    "max_new_tokens": 14,
    "max_length": 256,
    "shots": 8,
    "rehearsed": 6,  # every sixth passage is kept for the rehearsal, the others are what forgetting is measured on
    "rehearsal_steps": 5,
}
ON_THE_WAY = {"step", "accuracy", "update_norm", "general_nll_by_kind"} | {
    f"{text}_{score}" for text in ("validation", "test", "general") for score in ("nll", "kl", "same")
}  # a score for each checkpoint


def run(recipe: Recipe) -> dict[str, Any]:
    """Learning and forgetting at the checkpoints; in the end ten general passages are rehearsed for a few steps.

    A score is a list over the checkpoints; `general_nll_by_kind` has a list for each, in the order of the kinds' names.
    Without training there is one look, and the accuracy with a few rows shown.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    rows = {split: datafiles.load_task(recipe.data, split) for split in datafiles.SPLITS}
    model = training.prepare_model(recipe)
    measured = Probe(model, tokenizer, recipe, rows)
    scores: dict[str, Any] = {}
    if recipe.steps:
        checkpoints = SCORING["checkpoints"][recipe.data]

        def on_step(step: int, _: float) -> None:
            if step + 1 in checkpoints:
                measured.look()

        encoded = chat.encode_answers(rows["train"], tokenizer, recipe.template)
        history = training.fit(model, encoded, recipe, on_step=on_step)
        scores = {"losses": [round(loss, 4) for loss in history.losses], "tokens": history.tokens}
    else:
        measured.look()
        scores["few_shot_accuracy"] = measured.few_shot_accuracy()
    scores |= measured.seen
    measured.seen = {}
    training.fit(model, measured.rehearsed, _rehearsal(recipe))
    measured.look()
    return scores | {f"{name}_after_rehearsal": values[0] for name, values in measured.seen.items()}


def _rehearsal(recipe: Recipe) -> Recipe:
    """A few steps on general text, at the rate of the run."""
    return replace(
        recipe, data=None, steps=SCORING["rehearsal_steps"], batch_size=10, schedule="constant", warmup_steps=0
    )


class Probe(probe.Probe):
    """What all studies score, the norm of the update, and what rehearsal brings back; one entry for each look."""

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, rows: dict[str, list[Any]]
    ) -> None:
        texts, every = datafiles.load_passages(), SCORING["rehearsed"]
        kept = [place for place in range(len(texts)) if place % every]
        super().__init__(model, tokenizer, recipe, rows, SCORING, kept)
        self.rehearsed = [chat.encode_text(text, tokenizer, SCORING["max_length"]) for text in texts[::every]]
        self.start = _matrices(model)
        self.seen: dict[str, list[Any]] = {}

    def look(self) -> None:
        """Add one entry to every score."""
        for name, value in {**self.scores(), "update_norm": self.update_norm()}.items():
            self.seen.setdefault(name, []).append(value)

    def few_shot_accuracy(self) -> float:
        """What the model can do without training, once it is shown some rows."""
        shown = self.rows["train"][: SCORING["shots"]]
        return self.accuracy(
            [turn for row in shown for turn in chat.question(row["prompt"], row["answer"])], self.rows["test"]
        )

    def update_norm(self) -> float:
        """Frobenius norm of what was added to the matrices that LoRA adapts, all together."""
        now = _matrices(self.model)
        return round(sum((now[name] - old).square().sum().item() for name, old in self.start.items()) ** 0.5, 5)


@torch.no_grad()
def _matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    """The matrices that LoRA adapts, by the names of their layers, with what an adapter adds to them."""
    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    if adapted:
        return {
            name: layer.get_base_layer().weight + layer.get_delta_weight("default") for name, layer in adapted.items()
        }
    return {name: p.detach().clone() for name, p in model.named_parameters() if name.endswith(MATRICES)}


def _recipes() -> list[Recipe]:
    full = replace(DATES, adapter=None)
    decayed = {"schedule": "linear", "warmup_steps": 8}
    runs = [
        *grid(DATES, lr=[1e-4, 3e-4, 1e-3], seed=SEEDS),
        *grid(full, lr=[1e-5, 3e-5, 1e-4], seed=SEEDS),
        *grid(replace(full, lr=1e-4, trainable=MATRICES), seed=SEEDS),
        *grid(DATES, adapter=[{**LORA, "r": r} for r in (1, 64)], seed=SEEDS),
        *grid(replace(DATES, **decayed), seed=SEEDS),
        *grid(replace(full, lr=1e-4, **decayed), seed=SEEDS),
        *grid(ADDITION, lr=[3e-4, 1e-3], seed=SEEDS),
        *grid(replace(ADDITION, adapter=None), lr=[3e-5, 1e-4], seed=SEEDS),
    ]
    untrained = [replace(DATES, steps=0), replace(full, lr=1e-4, steps=0), replace(ADDITION, steps=0)]
    return untrained + sorted(runs, key=lambda recipe: recipe.seed)


STUDY = Study(
    "forgetting",
    _recipes(),
    run,
    SCORING,
    ("tasks/dates.jsonl", "tasks/addition.jsonl", "passages.jsonl"),
)


def looks() -> pd.DataFrame:
    """What the runs scored on their way: one row for each look at a run that was trained.

    Columns: the recipe's fields, `run` (a number for each run), `step`, `accuracy`, `answer_nll` and `task_kl` (test
    rows), `validation_nll`, `general_kl`, `general_same`, `update_norm`, `losses`; and the rise of the loss on general
    text, in nats per token: `forgetting`, by kind of text `on_<kind>`, and `forgetting_after_rehearsal`.
    """
    runs = records.table("forgetting")
    untrained, trained = runs.query("steps == 0").iloc[0], runs.query("steps > 0")
    trained = trained.assign(run=range(len(trained)), step=trained["data"].map(SCORING["checkpoints"]))
    rows = trained.explode([name for name in trained if name in ON_THE_WAY]).reset_index(drop=True)
    rows = rows.astype({name: float for name in ON_THE_WAY - {"step", "general_nll_by_kind"}} | {"step": int})
    start = untrained["general_nll"][0]
    rows["forgetting"] = rows["general_nll"] - start
    rows["forgetting_after_rehearsal"] = rows["general_nll_after_rehearsal"] - start
    for place, kind in enumerate(sorted(set(datafiles.load_passage_kinds()))):
        rows[f"on_{kind}"] = rows["general_nll_by_kind"].str[place] - untrained["general_nll_by_kind"][0][place]
    return rows.rename(columns={"test_nll": "answer_nll", "test_kl": "task_kl"}).copy()  # in one piece again
