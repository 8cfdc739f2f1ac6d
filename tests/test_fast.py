"""The fast step learns the same: gradients, formats and whole runs, against PEFT's own forward and the model's loss."""

import copy
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn

from course_utils import batches, training
from course_utils.training import Recipe
from course_utils.training.fast import EAGER_UP_TO, fast_step
from tests.conftest import made_examples, tiny

RECIPE = Recipe(lr=1e-3, steps=20, batch_size=4, seed=1)


def with_lora(dtype: torch.dtype = torch.float32, **options: object) -> nn.Module:
    """PEFT keeps the adapter in fp32 on any base."""
    model = tiny().to(dtype)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", **options)
    return get_peft_model(model, config)


def gradients(model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def fast_loss(model: nn.Module, batch: batches.Batch) -> torch.Tensor:
    with fast_step(model, batch["input_ids"].shape[1]):
        return batches.supervised_loss(model, batch)


def plain_fit(model: nn.Module, recipe: Recipe) -> list[float]:
    """The loop of any tutorial: PEFT's forward, the model's own loss, AdamW; on the same batches.

    Steps of a grouped order weigh as many tokens as they have, beside those of an average batch.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=0.0), []
    labels = [label for example in made_examples() for label in example["labels"][1:]]
    usual = recipe.batch_size * sum(label != -100 for label in labels) / len(made_examples())
    source = batches.batches(made_examples(), recipe.batch_size, recipe.seed, recipe.batch_order)
    for _ in range(recipe.steps):
        batch = batches.collate(next(source))
        loss = model.train()(**batch).loss
        tokens = (batch["labels"][:, 1:] != -100).sum()
        (loss * tokens / usual if recipe.batch_order == "group_by_length" else loss).backward()
        nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_first_gradients_are_the_models_own_in_fp32():
    model, batch = with_lora(), batches.collate(made_examples(4))
    expected = gradients(model, model(**batch).loss)
    assert torch.allclose(gradients(model, fast_loss(model, batch)), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_first_gradients_are_as_exact_as_pefts_in_16_bits(dtype):
    """Both are compared with fp32, on the same rounded base; and they stay in fp32, for the optimizer."""
    model, batch = with_lora(dtype), batches.collate(made_examples(4))
    reference = copy.deepcopy(model).float()
    exact = gradients(reference, reference(**batch).loss)
    pefts, ours = gradients(model, model(**batch).loss), gradients(model, fast_loss(model, batch))
    assert ours.dtype == torch.float32
    off = [1 - torch.cosine_similarity(found, exact, dim=0).item() for found in (pefts, ours)]
    assert off[1] < max(1.5 * off[0], 1e-5), off
    assert off[1] < 1e-3


@pytest.mark.parametrize("order", ["random", "group_by_length", "sequential"])
def test_twenty_steps_are_those_of_a_plain_loop_with_the_same_batches(order):
    recipe = replace(RECIPE, batch_order=order)
    ours, plain = with_lora(), with_lora()
    start = torch.cat([p.flatten() for p in ours.parameters() if p.requires_grad]).clone()
    losses = training.fit(ours, made_examples(), recipe).losses
    assert losses == pytest.approx(plain_fit(plain, recipe), rel=1e-3)
    ends = [torch.cat([p.detach().flatten() for p in m.parameters() if p.requires_grad]) for m in (ours, plain)]
    assert (ends[0] - ends[1]).norm() < 1e-2 * (ends[1] - start).norm()


def test_small_updates_are_not_lost_on_a_16_bit_base():
    """At 1e-6 a step moves a weight by less than bf16 can show; the parameters are in fp32 and keep it."""
    model = with_lora(torch.bfloat16)
    before = [p.clone() for p in model.parameters() if p.requires_grad]
    training.fit(model, made_examples(), replace(RECIPE, lr=1e-6, steps=2))
    for old, new in zip(before, (p for p in model.parameters() if p.requires_grad), strict=True):
        assert new.dtype == torch.float32
        assert 0 < (new - old).abs().max() < 1e-5
        assert torch.equal(new.bfloat16(), old.bfloat16()) or (new.bfloat16() == old.bfloat16()).float().mean() > 0.9


def test_lora_is_computed_in_the_format_of_the_base():
    model, seen = with_lora(torch.bfloat16), []
    for name, module in model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    fast_loss(model, batches.collate(made_examples(4)))
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    seen.clear()
    batches.supervised_loss(model, batches.collate(made_examples(4)))
    assert set(seen) == {(torch.float32, torch.float32)}, "outside, PEFT computes as ever"


@pytest.mark.parametrize(
    ("dtype", "length", "expected"),
    [
        (torch.bfloat16, EAGER_UP_TO, "eager"),
        (torch.bfloat16, EAGER_UP_TO + 1, "sdpa"),
        (torch.float32, 8, "sdpa"),
    ],
)
def test_attention_is_written_out_where_that_is_faster_and_left_as_it_was(dtype, length, expected):
    model = with_lora(dtype)
    with suppress(RuntimeError), fast_step(model, length):
        inside = model.config._attn_implementation
        raise RuntimeError("an error inside leaves nothing behind")
    assert inside == expected
    assert model.config._attn_implementation == "sdpa"
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_lora(torch.bfloat16, use_dora=True),
        lambda: get_peft_model(tiny().bfloat16(), PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")),
        lambda: tiny().bfloat16(),
    ],
    ids=["DoRA", "prompt tuning", "full"],
)
def test_other_methods_compute_in_their_own_formats(make):
    model, batch = make(), batches.collate(made_examples(4))
    with fast_step(model, 8):
        assert not torch.is_autocast_enabled("cpu")
    assert fast_loss(model, batch).item() == pytest.approx(batches.supervised_loss(model, batch).item(), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_with_gradient_checkpointing_the_gradients_are_the_same(dtype):
    """The backward pass runs the layers again, when the fast step is over."""
    model, batch = with_lora(dtype), batches.collate(made_examples(4))
    expected = gradients(model.train(), batches.supervised_loss(model, batch))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    assert torch.allclose(gradients(model, fast_loss(model, batch)), expected, rtol=1e-2, atol=1e-6)
