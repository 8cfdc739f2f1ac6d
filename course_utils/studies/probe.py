"""What does a model know of a task, and how far have its predictions moved? The scores that several studies take."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pandas as pd
from peft import PeftModel
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat, datafiles, evaluation
from course_utils.chat import Turn
from course_utils.evaluation import Predictions
from course_utils.training import Recipe

ANSWERS = ("validation", "test")  # the splits whose answers are scored; the first is to choose by


class Probe:
    """Measures one model again and again, beside what it is without its adapter, or was before training.

    Args:
        rows: of the task, by split.
        scoring: with `max_length` of general passages and `max_new_tokens` of answers, in tokens.
        passages: the places of the general passages that are measured; all by default.
        before: another probe's, of the same base model and texts, which saves measuring them once more.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe,
        rows: dict[str, list[Any]],
        scoring: dict[str, Any],
        passages: Sequence[int] | None = None,
        before: dict[str, Predictions] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.recipe, self.rows, self.scoring = model, tokenizer, recipe, rows, scoring
        texts, kinds = datafiles.load_passages(), datafiles.load_passage_kinds()
        places = range(len(texts)) if passages is None else passages
        self.kinds = [kinds[place] for place in places]
        if before is not None:
            self.before = before
            return
        measured = {split: chat.encode_answers(rows[split], tokenizer, recipe.template) for split in ANSWERS}
        measured["general"] = [chat.encode_text(texts[place], tokenizer, scoring["max_length"]) for place in places]
        with model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
            self.before = {name: evaluation.predictions(model, examples) for name, examples in measured.items()}

    def scores(self) -> dict[str, Any]:
        """The accuracy; and of the answers and of general text the loss, the divergence, and equal first choices.

        `general_nll_by_kind` has one loss for each kind of passage, in the order of the kinds' names.
        """
        found: dict[str, Any] = {"accuracy": self.accuracy([], self.rows["test"])}
        for measured, before in self.before.items():
            drift = evaluation.drift(self.model, before)
            found |= {f"{measured}_{name}": value for name, value in _per_token(drift).items()}
        kinds = drift.groupby(self.kinds).sum()  # of the general text, which came last
        return found | {"general_nll_by_kind": [round(value, 5) for value in kinds.nats / kinds.tokens]}

    def accuracy(self, shots: list[Turn], rows: list[Any]) -> float:
        """Share of exactly right answers, each asked for behind `shots`."""
        asked = [[*shots, *chat.question(row["prompt"])] for row in rows]
        answers = evaluation.generate(
            self.model,
            self.tokenizer,
            asked,
            template=self.recipe.template,
            max_new_tokens=self.scoring["max_new_tokens"],
        )
        return round(evaluation.accuracy(answers, [row["answer"] for row in rows]), 4)


def _per_token(drift: pd.DataFrame) -> dict[str, float]:
    """The loss, the divergence from the predictions before (both in nats), and the share of equal first choices."""
    sums = drift.sum()
    names = {"nll": sums.nats, "kl": sums.kl, "same": sums.same}
    return {name: round(float(value / sums.tokens), 6) for name, value in names.items()}
