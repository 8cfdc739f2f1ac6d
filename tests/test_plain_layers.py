"""Plain layers answer as the model's own do, and leave them alone."""

import copy

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from torch import nn

from course_utils import loading
from course_utils.evaluation import plain_layers as room
from course_utils.evaluation.plain_layers import plain_layers
from tests.conftest import tiny

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


def adapted(model: nn.Module, **options: object) -> nn.Module:
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM", **options)
    return get_peft_model(model, config).eval()


def replaced(model: nn.Module) -> list[str]:
    """The names of the layers that are others inside."""
    before = dict(model.named_modules())
    with plain_layers(model):
        inside = dict(model.named_modules())
    return [
        name for name, layer in before.items() if inside.get(name) is not layer and type(inside.get(name)) is nn.Linear
    ]


@torch.no_grad()
def test_lora_in_fp32_is_added_up_and_the_layers_come_back():
    model = adapted(tiny())
    before = [*model.modules()], copy.deepcopy(model.state_dict())
    own = model(IDS).logits
    assert len(replaced(model)) == 14
    with plain_layers(model):
        assert not any("lora" in name for name, _ in model.named_parameters())
        assert torch.allclose(model(IDS).logits, own, rtol=1e-5, atol=1e-5)
    assert [*model.modules()] == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in model.state_dict().items())
    assert torch.equal(model(IDS).logits, own)


@torch.no_grad()
def test_two_adapters_count_as_far_as_they_are_active():
    model = adapted(tiny())
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    for active in (["default"], ["other"], ["default", "other"]):
        model.base_model.set_adapter(active)
        own = model(IDS).logits
        with plain_layers(model):
            assert torch.allclose(model(IDS).logits, own, rtol=1e-5, atol=1e-5)
    with model.disable_adapter():
        own = model(IDS).logits
        with plain_layers(model):
            assert torch.equal(model(IDS).logits, own)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (lambda: adapted(tiny().bfloat16()), 0),
        (lambda: adapted(tiny(), use_dora=True), 0),
        (lambda: adapted(tiny(), lora_bias=True), 0),
        (lambda: tiny(), 0),
    ],
    ids=["16 bits", "DoRA", "a bias", "no adapter"],
)
def test_what_would_answer_otherwise_stays(model, count):
    assert len(replaced(model())) == count


def test_an_error_inside_puts_the_layers_back():
    model = adapted(tiny())
    before = [*model.modules()]
    with pytest.raises(RuntimeError), plain_layers(model):
        raise RuntimeError
    assert [*model.modules()] == before


def test_without_memory_nothing_is_replaced(monkeypatch):
    model = adapted(tiny())
    linear = [m for m in tiny().modules() if isinstance(m, nn.Linear)]
    needed = sum(4 * m.weight.numel() for m in linear) - 4 * 64 * 32  # PEFT leaves the head out
    monkeypatch.setattr(room, "_free_bytes", lambda _: 2 * needed - 1)
    assert replaced(model) == []
    monkeypatch.setattr(room, "_free_bytes", lambda _: 2 * needed)
    assert len(replaced(model)) == 14


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_4_bit_weights_are_unpacked_to_the_same_numbers(dtype):
    model = loading.load_model(precision="nf4-dq", compute_dtype=dtype, device="cpu")
    own = model(IDS).logits
    assert len(replaced(model)) == 210
    with plain_layers(model):
        assert torch.equal(model(IDS).logits, own)
    wrapped = adapted(model)
    own = wrapped(IDS).logits
    assert len(replaced(wrapped)) == 210
    with plain_layers(wrapped):
        assert any("lora" in name for name, _ in wrapped.named_parameters()) == (dtype == torch.bfloat16)
        assert torch.allclose(wrapped(IDS).logits, own, rtol=1e-4, atol=1e-3)
    assert torch.equal(wrapped(IDS).logits, own)


@torch.no_grad()
def test_what_the_model_itself_repacks_or_takes_apart_stays():
    """bitsandbytes repacks 4-bit weights for its own kernel; PEFT unmerges an adapter that is merged and disabled."""
    model = loading.load_model(precision="nf4-dq", device="cpu")
    wrapped = adapted(model)
    reference = copy.deepcopy(wrapped)
    wrapped.merge_adapter(), reference.merge_adapter()
    with wrapped.disable_adapter(), reference.disable_adapter():
        own = reference(IDS).logits
        with plain_layers(wrapped):
            assert torch.equal(wrapped(IDS).logits, own)
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.weight.quant_state.packing_format_for_cpu = True  # as its kernel for AVX512-BF16 leaves it
    assert replaced(wrapped) == []
