"""For how many steps is the adapter trained that comes with the course?

The rule, written down before the first run: the recipe of `recipes/guanaco.yaml` learns from all training
conversations, and every 25 steps there is a look at its loss on the validation conversations. The adapter that ships is
trained for as many steps as the first look has after which two looks in a row are not lower. There the run ends; if it
comes to its own end before that, those are the steps. The test conversations choose nothing.

One run, one seed: with another seed, the loss could stop falling a look earlier or later.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from course_utils import evaluation, loading, training
from course_utils.chat import Example
from course_utils.studies import conversations
from course_utils.studies.conversations import CONVERSATIONS
from course_utils.studies.records import Study
from course_utils.training import Recipe

LONGEST = replace(CONVERSATIONS, precision="nf4-dq", compute_dtype="bf16", steps=400, lr=5e-4, max_grad_norm=0.3)
SCORING = {"every": 25, "not_lower": 2}  # steps from look to look; looks in a row


def run(recipe: Recipe) -> dict[str, Any]:
    """Train with TRL until the rule is met. Scores: `validation_nll`, in nats per answer token, one entry a look;
    `losses` and `tokens`.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    examples = conversations.encoded(tokenizer, recipe)
    model = training.prepare_model(replace(recipe, adapter=None))  # the trainer adds it
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.sft_trainer(model, tokenizer, examples["train"], folder, recipe)
        looks = _Looks(trainer.model, examples["validation"])
        trainer.add_callback(looks)
        history = training.run(trainer)
    losses = [round(loss, 4) for loss in history.losses]
    return {"validation_nll": looks.seen, "losses": losses, "tokens": history.tokens}


class _Looks(TrainerCallback):
    """Looks at the model on its way, and ends the run when the rule says so."""

    def __init__(self, model: nn.Module, examples: list[Example]) -> None:
        self.model, self.examples = model, examples
        self.seen: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        if state.global_step % SCORING["every"] == 0:
            self.seen.append(round(evaluation.nll(self.model, self.examples).mean, 6))
            control.should_training_stop |= chosen(self.seen) is not None
        return control


def chosen(validation_nll: Sequence[float]) -> int | None:
    """The steps of the first look after which two in a row are not lower; None if there is none so far."""
    later = SCORING["not_lower"]
    for place in range(len(validation_nll) - later):
        if min(validation_nll[place + 1 : place + 1 + later]) >= validation_nll[place]:
            return (place + 1) * SCORING["every"]
    return None


STUDY = Study("shipped", [LONGEST], run, SCORING, ("conversations.jsonl",), minutes=30)


def steps() -> int:
    """What the recorded run says.

    Raises:
        ValueError: there is no record yet.
    """
    if not (lines := STUDY.done()):
        raise ValueError("The study 'shipped' has no record; `python -m course_utils.studies shipped` makes it.")
    return chosen(lines[0]["validation_nll"]) or LONGEST.steps
