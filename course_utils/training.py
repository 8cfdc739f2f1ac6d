"""How do I fine-tune it? A plain loop, for notebooks 01 to 03, and the loss that it shares with notebook 04's."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from course_utils.chat import IGNORE, Example

Batch = dict[str, torch.Tensor]


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


def collate(examples: Sequence[Example], pad_token_id: int = 0) -> Batch:
    """Right-padded tensors of shape (batch, length); padding has label -100 and attention mask 0.

    Padding is decided by length, never by token id, so a pad token that equals the end-of-sequence token does no harm.

    Raises:
        ValueError: there is no example.
    """
    check_examples(examples)
    length = max(len(example["input_ids"]) for example in examples)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (length - len(row)) for row in values])

    return {
        "input_ids": padded([example["input_ids"] for example in examples], pad_token_id),
        "attention_mask": padded([[1] * len(example["input_ids"]) for example in examples], 0),
        "labels": padded([example["labels"] for example in examples], IGNORE),
    }


def check_examples(examples: Sequence[Example]) -> None:
    """Refuse an empty list, of which there is no batch to make.

    Raises:
        ValueError: there is no example.
    """
    if not examples:
        raise ValueError(
            "The list of examples is empty. chat.encode_all says on stderr how many threads it leaves out, and why."
        )


def token_losses(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Loss in nats of every supervised token of a batch, as one vector; the batch may lie on any device.

    The logits are the largest tensor of a step (batch x length x vocabulary), and most positions have no label, so the
    head is asked only for the columns that some row needs. Columns count from the end, because prompt tuning and its
    kin put virtual tokens in front.
    """
    device = next(model.parameters()).device
    labels = batch["labels"]
    columns = (labels[:, 1:] != IGNORE).any(dim=0).nonzero().squeeze(1)  # column j predicts token j + 1
    inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=(columns - labels.shape[1]).to(device), use_cache=False).logits
    targets = labels[:, columns + 1].to(logits.device)
    counted = targets != IGNORE
    return cross_entropy(logits[counted].float(), targets[counted], reduction="none")


def supervised_loss(model: nn.Module, batch: Batch, num_items: torch.Tensor | int | None = None) -> torch.Tensor:
    """Mean loss in nats over the supervised tokens; equal to the model's own loss, for less work.

    `num_items` replaces the number of supervised tokens as divisor (gradient accumulation, several processes).

    Raises:
        ValueError: there is nothing to take the mean of, because no token has a label.
    """
    losses = token_losses(model, batch)
    if not losses.numel() and not num_items:
        raise ValueError(
            "All labels of this batch are -100, so there is nothing to learn from it. Pass examples with answers."
        )
    return losses.sum() / (losses.numel() if num_items is None else num_items)


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


def batches(examples: Sequence[Example], batch_size: int, seed: int) -> Iterator[list[Example]]:
    """Shuffled batches without end; each pass over the data has its own order, fixed by `seed`.

    Raises:
        ValueError: the examples do not fill one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it has to be 1 or more.")
    if len(examples) < batch_size:
        raise ValueError(
            f"{len(examples)} examples do not fill one batch of {batch_size}: lower batch_size, or pass more examples."
        )
    return _passes(list(examples), batch_size, random.Random(seed))


def _passes(examples: list[Example], batch_size: int, order: random.Random) -> Iterator[list[Example]]:
    while True:
        shuffled = order.sample(examples, len(examples))
        for start in range(0, len(shuffled) - batch_size + 1, batch_size):
            yield shuffled[start : start + batch_size]


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
    *,
    steps: int,
    lr: float,
    batch_size: int = 8,
    seed: int = 0,
    max_grad_norm: float = 1.0,
    on_step: Callable[[int, float], None] | None = None,
) -> History:
    """Train the parameters that require gradients, with AdamW at a constant rate; what the first three notebooks use.

    The model is switched to train mode and left there. The progress bar goes to stderr. On a float16 base the loss is
    scaled, so that gradients on their way to the adapters do not vanish. Full fine-tuning in bfloat16 works, but loses
    every update that is smaller than 1/256 of its weight.

    Raises:
        ValueError: fewer examples than one batch, nothing to train, or parameters to train in float16.
        FloatingPointError: the loss became nan or infinite; names the step.
    """
    trainable = trainable_parameters(model)
    source = batches(examples, batch_size, seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.0)
    device = next(model.parameters()).device.type
    scaler = torch.amp.GradScaler(device, enabled=any(p.dtype == torch.float16 for p in model.parameters()))
    history = History()
    model.train()
    start = time.perf_counter()
    with tqdm(total=steps, unit="step", ncols=78, mininterval=1.0) as bar:
        for step in range(steps):
            batch = collate(next(source))
            loss = supervised_loss(model, batch)
            value = loss.item()  # once: on a GPU each call waits for it
            check_finite(value, step + 1, lr)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(trainable, max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            history.losses.append(value)
            history.tokens += int(batch["attention_mask"].sum())
            bar.set_postfix(loss=f"{value:.3f}", refresh=False)
            bar.update()
            if on_step:
                on_step(step, value)
    history.seconds = time.perf_counter() - start
    return history
