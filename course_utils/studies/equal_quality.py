"""Is what is fast as good? The same conversations, learned by the course's loop, by a plain one and by stock TRL."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainerState
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from course_utils import evaluation, loading, training
from course_utils.batches import batches, collate
from course_utils.chat import Example
from course_utils.studies import conversations
from course_utils.studies.conversations import CONVERSATIONS
from course_utils.studies.records import Study, grid
from course_utils.training import History, Recipe
from course_utils.training.sft import FROM_RECIPE

OnStep = Callable[[int, float], None]
VARIANTS = {  # whose loop it is, and the fields of the recipe in which its defaults differ from the course's
    "ours": {},
    "stock_trl": {"batch_order": "random", "optim": "adamw_torch_fused"},
    "stock_trl_tuned": {"batch_order": "sequential", "optim": "adamw_torch_fused"},  # in the bench: see tests/bench
    "plain_peft": {"batch_order": "random"},
}
SCORING = {"batch_size": 8}


def _nothing(step: int, loss: float) -> None:
    pass


def variant(recipe: Recipe) -> str:
    """Whose loop runs a recipe: the one whose fields it has."""
    fields = {"batch_order": recipe.batch_order, "optim": recipe.optim}
    ours = {name: getattr(CONVERSATIONS, name) for name in fields}
    return next(name for name, differing in VARIANTS.items() if fields == ours | differing)


def train(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], on_step: OnStep = _nothing
) -> tuple[nn.Module, History]:
    """A model trained by the loop that the recipe names, and what the training leaves behind.

    `on_step` is called with -1 when all is ready for the first step, and with its number after each step.
    """
    name = variant(recipe)
    if name.startswith("stock"):
        return stock_trl(recipe, tokenizer, examples, on_step, tuned=name.endswith("tuned"))
    model = training.prepare_model(recipe)
    on_step(-1, math.nan)
    loop = training.fit if name == "ours" else plain_peft
    return model, loop(model, examples, recipe, on_step=on_step)


def plain_peft(model: nn.Module, examples: Sequence[Example], recipe: Recipe, *, on_step: OnStep) -> History:
    """The loop of a tutorial on PEFT: the model's own loss, in the formats that PEFT leaves it in."""
    history, device = History(), next(model.parameters()).device
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
    source = batches(examples, recipe.batch_size, recipe.seed, recipe.batch_order)
    model.train()
    start = time.perf_counter()
    for step in range(recipe.steps):
        batch = {name: tensor.to(device) for name, tensor in collate(next(source)).items()}
        loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        history.losses.append(loss.item())
        history.tokens += int(batch["attention_mask"].sum())
        on_step(step, history.losses[-1])
    history.seconds = time.perf_counter() - start
    return history


def stock_trl(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    on_step: OnStep,
    *,
    tuned: bool = False,
) -> tuple[nn.Module, History]:
    """TRL's own trainer with its own loss and its defaults, but for the schedule, which is the recipe's.

    `tuned` turns gradient checkpointing off, as its documentation advises for speed.
    """
    model = training.prepare_model(replace(recipe, adapter=None))
    with tempfile.TemporaryDirectory() as folder:
        settings = {option: getattr(recipe, field) for option, field in FROM_RECIPE.items()}
        args = SFTConfig(
            output_dir=folder,
            bf16=next(model.parameters()).dtype == torch.bfloat16,
            gradient_checkpointing=not tuned,
            use_cpu=model.device.type == "cpu",
            include_num_input_tokens_seen="non_padding",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1,
            **settings,
        )
        torch.manual_seed(recipe.seed)  # the adapter's start
        trainer = SFTTrainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(list(examples)),
            processing_class=tokenizer,
            peft_config=training.adapter_config(recipe),
            callbacks=[_OnStep(on_step)],
        )
        trainer.remove_callback(PrinterCallback)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    history = History(losses, trainer.state.num_input_tokens_seen, seconds)
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False), history


class _OnStep(TrainerCallback):
    def __init__(self, on_step: OnStep) -> None:
        self.call = on_step

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.call(-1, math.nan)

    def on_step_end(self, args: object, state: TrainerState, *_: object, **__: object) -> None:
        self.call(state.global_step - 1, math.nan)  # the loss is logged later


def run(recipe: Recipe) -> dict[str, Any]:
    """Loss on held-out conversations after training, in nats per supervised token."""
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    examples = conversations.encoded(tokenizer, recipe)
    model, history = train(recipe, tokenizer, examples["train"])
    return {
        "variant": variant(recipe),
        "losses": [round(loss, 4) for loss in history.losses],
        "tokens": history.tokens,
        "train_seconds": round(history.seconds, 1),
        "heldout_nll": evaluation.nll(model, examples["test"], SCORING["batch_size"]).mean,
    }


def _recipes(name: str, seeds: Sequence[int]) -> list[Recipe]:
    start = replace(CONVERSATIONS, **VARIANTS[name])
    return grid(start, precision=["fp32", "bf16"], lr=[1e-4, 1e-3], seed=seeds)


STUDY = Study(
    "equal_quality",
    [*_recipes("ours", [0, 1, 2]), *_recipes("plain_peft", [0, 1, 2]), *_recipes("stock_trl", [0])],
    run,
    SCORING,
    ("conversations.jsonl",),
)
