"""Batches, padding and the loss, against transformers, PEFT and sums by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from course_utils import batches
from tests.conftest import made_examples, tiny


def test_collate_pads_by_length_not_by_token():
    batch = batches.collate([{"input_ids": [5, 0, 2], "labels": [-100, 0, 2]}, {"input_ids": [7], "labels": [7]}], 2)
    assert batch["input_ids"].tolist() == [[5, 0, 2], [7, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 0, 2], [7, -100, -100]]


def test_loss_equals_the_models_own(model, examples):
    batch = batches.collate(examples)
    with torch.no_grad():
        assert batches.supervised_loss(model, batch).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def test_loss_equals_a_sum_over_single_examples():
    """Padding and batching change nothing: the batch loss is the mean over all supervised tokens."""
    model, examples = tiny(), made_examples()
    losses = torch.cat([batches.token_losses(model, batches.collate([example])) for example in examples])
    together = batches.supervised_loss(model, batches.collate(examples))
    assert together.item() == pytest.approx(losses.mean().item(), rel=1e-5)
    assert losses.numel() == sum(label != -100 for e in examples for label in e["labels"][1:])


def test_loss_with_virtual_tokens_equals_pefts():
    model = get_peft_model(tiny(), PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"))
    batch = batches.collate(made_examples(4))
    assert batches.supervised_loss(model, batch).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def test_batches_show_every_example_once_per_pass_in_a_seeded_order():
    source, again = (batches.batches(list(range(8)), 4, seed=1) for _ in range(2))
    first_pass = [*next(source), *next(source)]
    assert sorted(first_pass) == list(range(8))
    assert first_pass == [*next(again), *next(again)]
    assert first_pass != [*next(source), *next(source)]


def test_without_a_supervised_token_there_is_no_mean():
    masked = [{"input_ids": [5, 6, 7], "labels": [-100, -100, -100]}]
    with pytest.raises(ValueError, match="All labels of this batch are -100"):
        batches.supervised_loss(tiny(), batches.collate(masked))
    assert batches.supervised_loss(tiny(), batches.collate(masked), num_items=7) == 0  # a share of a larger batch
    with pytest.raises(ValueError, match="All labels of this batch are -100"):
        batches.supervised_loss(tiny(), batches.collate(masked), num_items=torch.tensor(0))


def test_empty_sets_say_what_to_look_at():
    with pytest.raises(ValueError, match="The list of examples is empty"):
        batches.collate([])
    with pytest.raises(ValueError, match="0 examples do not fill one batch of 4"):
        batches.batches([], 4, seed=0)  # at once, not at the first batch
    with pytest.raises(ValueError, match="batch_size is 0"):
        batches.batches(made_examples(), 0, seed=0)


class Elsewhere(torch.nn.Module):
    """Pretends to lie on another device, and answers like a model there; the answer comes back to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, logits_to_keep: torch.Tensor, **inputs: torch.Tensor) -> SimpleNamespace:
        where = {tensor.device.type for tensor in inputs.values() if isinstance(tensor, torch.Tensor)}
        assert where | {logits_to_keep.device.type} == {"meta"}
        return SimpleNamespace(logits=torch.zeros(4, len(logits_to_keep), 64))


def test_batches_go_to_where_the_model_lies():
    """The notebooks collate on the CPU, whatever the model lies on."""
    losses = batches.token_losses(Elsewhere(), batches.collate(made_examples(4)))
    assert losses.mean().item() == pytest.approx(math.log(64))


def test_prompts_are_padded_on_the_left():
    batch = batches.collate_prompts([[5, 6, 7], [8]], pad_token_id=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [2, 2, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_sequential_order_is_that_of_the_examples_in_every_pass():
    source = batches.batches(list(range(7)), 3, seed=5, order="sequential")
    assert [next(source) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
