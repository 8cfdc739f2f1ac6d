"""What does one step see, how is it padded, and which tokens does it score? Batches, their order, and the loss."""

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import Sampler

from course_utils.chat import IGNORE, Example

Batch = dict[str, torch.Tensor]
WINDOW = 16  # batches: among so many, examples of like length are looked for


def collate(examples: Sequence[Example], pad_token_id: int = 0) -> Batch:
    """Right-padded tensors of shape (batch, length); padding has label -100 and attention mask 0.

    Padding is decided by length, never by token id, so a pad token that equals the end-of-sequence token does no harm.
    Examples that are several conversations in a row (packed) may have `position_ids`, which begin again at 0 with each.

    Raises:
        ValueError: there is no example.
    """
    check_examples(examples)
    length = max(len(example["input_ids"]) for example in examples)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (length - len(row)) for row in values])

    batch = {
        "input_ids": padded([example["input_ids"] for example in examples], pad_token_id),
        "attention_mask": padded([[1] * len(example["input_ids"]) for example in examples], 0),
        "labels": padded([example["labels"] for example in examples], IGNORE),
    }
    if "position_ids" in examples[0]:
        batch["position_ids"] = padded([example["position_ids"] for example in examples], 0)
    return batch


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
    """Loss in nats of every supervised token of a batch, as one vector; the batch may lie on any device."""
    logits, targets = supervised_logits(model, batch)
    return cross_entropy(logits.float(), targets, reduction="none")


def supervised_logits(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that predict the supervised tokens, row by row of the batch, and those tokens.

    The logits are the largest tensor of a step (batch x length x vocabulary), and most positions have no label. So the
    model's head is shown the hidden states of the supervised positions alone; the model's own code does the rest.
    """
    device = next(model.parameters()).device
    targets = pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)  # position j predicts token j + 1
    counted = targets != IGNORE
    # transformers keeps packed conversations apart by their positions, if it is given no mask; padding comes last, so
    # no token of theirs would see it
    unseen = {"labels", "attention_mask"} if "position_ids" in batch else {"labels"}
    inputs = {name: tensor.to(device) for name, tensor in batch.items() if name not in unseen}
    with _head_sees_only(counted, model):
        logits = model(**inputs, use_cache=False).logits
    if logits.dim() == 3:  # no head was found: all positions went through it
        logits = _supervised(logits, counted)
    return logits, targets[counted].to(logits.device)


def _head_sees_only(counted: torch.Tensor, model: nn.Module) -> AbstractContextManager:
    """While it lasts, the output layer is given rows, not (batch, length), if the model says which layer that is."""
    bare = getattr(model, "module", model)  # several processes: the model inside DistributedDataParallel
    head = bare.get_output_embeddings() if hasattr(bare, "get_output_embeddings") else None
    if head is None:
        return nullcontext()
    return head.register_forward_pre_hook(lambda _, seen: (_supervised(seen[0], counted), *seen[1:]))


def _supervised(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The counted rows of (batch, length, width); prompt tuning and its kin put virtual tokens in front of them."""
    return values[:, -counted.shape[1] :][counted.to(values.device)]


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


def mean_items(examples: Sequence[Example], order: str) -> float | None:
    """Supervised tokens of an average example, if the order weights its steps by their tokens; else None.

    In random batches, short and long examples are mixed, and the mean over a batch treats all tokens nearly alike. In
    batches of like length it would not: a token of a short example would count for many of a long one.
    """
    if order != "group_by_length":
        return None
    return sum(label != IGNORE for example in examples for label in example["labels"][1:]) / len(examples)


def batches(examples: Sequence[Example], batch_size: int, seed: int, order: str = "random") -> Iterator[list[Example]]:
    """Full batches without end; each pass over the data has its own order, fixed by `seed`.

    "random" shuffles. "group_by_length" shuffles, too, and then puts examples of like length into one batch, which
    saves padding; its steps are weighted (`mean_items`). "sequential" is the order of the examples, in every pass.
    What is left of a pass, and fills no batch, is left out of it.

    Raises:
        ValueError: the examples do not fill one batch.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it has to be 1 or more.")
    if len(examples) < batch_size:
        raise ValueError(
            f"{len(examples)} examples do not fill one batch of {batch_size}: lower batch_size, or pass more examples."
        )
    full = len(examples) - len(examples) % batch_size
    return (
        [examples[place] for place in ordered[start : start + batch_size]]
        for ordered in passes([len(one["input_ids"]) for one in examples], batch_size, seed, order)
        for start in range(0, full, batch_size)
    )


def passes(lengths: Sequence[int], batch_size: int, seed: int, order: str) -> Iterator[list[int]]:
    """The places of examples of these lengths, one pass after another, as `batches` orders them.

    What fills no batch stands at the end of its pass.
    """
    rng, count = random.Random(seed), len(lengths)
    full = count - count % batch_size
    while True:
        places = list(range(count)) if order == "sequential" else rng.sample(range(count), count)
        if order == "group_by_length":
            ordered = _by_length_in_windows(places[:full], lengths, WINDOW * batch_size)
            cut = [ordered[start : start + batch_size] for start in range(0, full, batch_size)]
            places[:full] = [place for chosen in rng.sample(cut, len(cut)) for place in chosen]
        yield places


def _by_length_in_windows(places: list[int], lengths: Sequence[int], size: int) -> list[int]:
    """Sorting all of them would give every pass the same batches; inside windows, neighbors change with the pass."""
    windows = [places[start : start + size] for start in range(0, len(places), size)]
    return [place for window in windows for place in sorted(window, key=lengths.__getitem__)]


class GroupedSampler(Sampler[int]):
    """The order "group_by_length" for a trainer that says in which pass it is, as accelerate does before each.

    So a resumed run finds its place, and several processes agree: transformers' own sampler has no seed of its own.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def __iter__(self) -> Iterator[int]:
        found = passes(self.lengths, self.batch_size, self.seed, "group_by_length")
        return iter(next(islice(found, self.epoch, None)))

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """The pass that the next iteration goes through, counted from 0."""
        self.epoch = epoch
