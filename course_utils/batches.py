"""What does one step see, how is it padded, and which tokens does it score? Batches, their order, and the loss."""

import random
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from course_utils.chat import IGNORE, Example

Batch = dict[str, torch.Tensor]


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


def collate_prompts(prompts: Sequence[list[int]], pad_token_id: int) -> Batch:
    """Left-padded tensors of shape (batch, length), without labels: every answer starts right behind its prompt."""
    length = max(map(len, prompts))
    missing = [length - len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor([[pad_token_id] * n + prompt for n, prompt in zip(missing, prompts, strict=True)]),
        "attention_mask": torch.tensor([[0] * n + [1] * (length - n) for n in missing]),
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


def batches(examples: Sequence[Example], batch_size: int, seed: int, order: str = "random") -> Iterator[list[Example]]:
    """Full batches without end; with the order "random", each pass over the data has its own, fixed by `seed`.

    What is left of a pass, and fills no batch, is left out of it. The order "sequential" is that of the examples.

    Raises:
        ValueError: the examples do not fill one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it has to be 1 or more.")
    if len(examples) < batch_size:
        raise ValueError(
            f"{len(examples)} examples do not fill one batch of {batch_size}: lower batch_size, or pass more examples."
        )
    return _passes(list(examples), batch_size, random.Random(seed) if order == "random" else None)


def _passes(examples: list[Example], batch_size: int, shuffler: random.Random | None) -> Iterator[list[Example]]:
    while True:
        ordered = shuffler.sample(examples, len(examples)) if shuffler else examples
        for start in range(0, len(ordered) - batch_size + 1, batch_size):
            yield ordered[start : start + batch_size]
