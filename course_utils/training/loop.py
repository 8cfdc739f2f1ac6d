"""How is a model trained in a plain loop? As notebooks 01 to 03 do it."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from tqdm import tqdm
from transformers import get_scheduler

from course_utils.batches import Batch, batches, collate, mean_items, supervised_loss
from course_utils.chat import IGNORE, Example
from course_utils.training.fast import fast_step
from course_utils.training.recipe import Recipe


@dataclass
class History:
    """What a training run leaves behind: loss per step (nats per supervised token), tokens seen, seconds."""

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Speed since the last start; 0 if nothing was left to train."""
        return self.tokens / self.seconds if self.tokens else 0.0


def check_finite(loss: float, step: int, lr: float) -> None:
    """Stop a run whose loss is not a number; otherwise it would train on, and its curve might look like success.

    Raises:
        FloatingPointError: the loss is nan or infinite; names the step, counted from 1.
    """
    if not math.isfinite(loss):
        raise stopped(f"The loss at step {step} is {loss}", lr)


def stopped(what: str, lr: float) -> FloatingPointError:
    """The error of a run that went wrong, with what to try."""
    return FloatingPointError(
        f"{what}: the run was stopped, and nothing is saved from this step on. Try a learning rate below {lr:g}, "
        "load_model(precision='fp32'), or look for odd examples in the data."
    )


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require gradients.

    Raises:
        ValueError: there is none, or one is in float16, in which AdamW cannot train.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(
            "No parameter requires a gradient: add an adapter (peft.get_peft_model), or model.requires_grad_(True)."
        )
    if any(p.dtype == torch.float16 for p in trainable):
        raise ValueError(
            "Parameters in float16 cannot be trained: AdamW's squared gradients and its epsilon of 1e-8 are zero in "
            "this format, and the loss is nan from the second step on. Load the model with precision='fp32' or "
            "'bf16', or freeze it and add an adapter (PEFT keeps adapters in float32)."
        )
    return trainable


def fit(
    model: nn.Module,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    on_step: Callable[[int, float], None] | None = None,
) -> History:
    """Train the parameters that require gradients with AdamW, as the recipe says; the first three notebooks use it.

    Of the recipe, what concerns the steps is read: the model and the examples are given. The model is switched to train
    mode and left there. The progress bar goes to stderr. On a float16 base the loss is scaled, so that gradients on
    their way to the adapters do not vanish. Full fine-tuning in bfloat16 works, but loses every update that is smaller
    than 1/256 of its weight.

    Raises:
        ValueError: fewer examples than one batch, nothing to train, parameters to train in float16, or an optimizer
            that is not here.
        FloatingPointError: the loss became nan or infinite; names the step.
    """
    if recipe.optim != "adamw_torch":
        raise ValueError(f"The plain loop has no optimizer {recipe.optim!r}; use 'adamw_torch', or sft_trainer.")
    trainable = trainable_parameters(model)
    source = batches(examples, recipe.batch_size, recipe.seed, recipe.batch_order)
    usual = (mean_items(examples, recipe.batch_order) or 0.0) * recipe.batch_size * recipe.accumulation
    torch.manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(trainable, lr=recipe.lr, weight_decay=recipe.weight_decay)
    rates = get_scheduler(recipe.schedule, optimizer, recipe.warmup_steps, recipe.steps)
    device = next(model.parameters()).device.type
    scaler = torch.amp.GradScaler(device, enabled=any(p.dtype == torch.float16 for p in model.parameters()))
    history = History()
    model.train()
    start = time.perf_counter()
    with tqdm(total=recipe.steps, unit="step", ncols=78, mininterval=1.0) as bar:
        for step in range(recipe.steps):
            parts = [collate(next(source)) for _ in range(recipe.accumulation)]
            value = _backward(model, parts, scaler, usual)
            check_finite(value, step + 1, recipe.lr)
            scaler.unscale_(optimizer)
            if recipe.max_grad_norm:
                nn.utils.clip_grad_norm_(trainable, recipe.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            rates.step()
            optimizer.zero_grad(set_to_none=True)
            history.losses.append(value)
            history.tokens += sum(int(part["attention_mask"].sum()) for part in parts)
            bar.set_postfix(loss=f"{value:.3f}", refresh=False)
            bar.update()
            if on_step:
                on_step(step, value)
    history.seconds = time.perf_counter() - start
    return history


def _backward(model: nn.Module, parts: list[Batch], scaler: torch.amp.GradScaler, usual: float) -> float:
    """Gradients of the mean loss over the supervised tokens of all parts; returns that loss, in nats.

    With one part, its own number of tokens divides. The value is asked for once: on a GPU each call waits for it.
    `usual` tokens have gradients of full weight, fewer have less; 0: all steps weigh the same.
    """
    found = sum(int((part["labels"][:, 1:] != IGNORE).sum()) for part in parts)
    items = None if len(parts) == 1 else found
    weight = found / usual if usual else 1.0
    value = 0.0
    for part in parts:
        with fast_step(model, part["input_ids"].shape[1]):
            loss = supervised_loss(model, part, items)
        value += loss.item()
        scaler.scale(weight * loss).backward()
    return value
