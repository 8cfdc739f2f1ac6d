"""What notebook 01 defines, taken out of it and held against PEFT and closed forms."""

import copy
import math

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import lessons

lora = lessons.definitions("01_lora")


@pytest.fixture
def pair():
    """Our LoRA and PEFT's on the same small model, with the same nonzero A and B."""
    torch.manual_seed(1)
    base = nn.Sequential()
    base.add_module("q_proj", nn.Linear(12, 20))
    base.add_module("act", nn.ReLU())
    base.add_module("other", nn.Linear(20, 4))
    theirs = get_peft_model(copy.deepcopy(base), LoraConfig(r=3, lora_alpha=12, target_modules=["q_proj"]))
    ours = lora.add_lora(base, r=3, lora_alpha=12, targets=("q_proj",))
    layer = theirs.base_model.model.q_proj
    with torch.no_grad():
        ours.q_proj.lora_B.normal_()
        layer.lora_A.default.weight.copy_(ours.q_proj.lora_A)
        layer.lora_B.default.weight.copy_(ours.q_proj.lora_B)
    return ours, theirs


def test_lora_output_gradient_and_merge_equal_pefts(pair):
    ours, theirs = pair
    x = torch.randn(5, 12)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    for model in pair:
        model(x).square().mean().backward()
    layer = theirs.base_model.model.q_proj
    assert torch.allclose(ours.q_proj.lora_A.grad, layer.lora_A.default.weight.grad, atol=1e-6)
    assert torch.allclose(ours.q_proj.lora_B.grad, layer.lora_B.default.weight.grad, atol=1e-6)
    assert ours.other.weight.grad is None
    merged = lora.merge_lora(ours)
    assert isinstance(merged.q_proj, nn.Linear)
    assert torch.allclose(merged.q_proj.weight, theirs.merge_and_unload().q_proj.weight, atol=1e-6)


def test_lora_starts_unchanged_with_kaiming_uniform_a_and_zero_b():
    base = nn.Linear(300, 50)
    layer = lora.LoRALinear(base, r=8, lora_alpha=16)
    x = torch.randn(4, 300)
    assert torch.equal(layer(x), base(x))
    assert layer.scaling == 2
    bound = 1 / math.sqrt(300)  # kaiming_uniform_(a=sqrt(5)) is U(-1/sqrt(d_in), 1/sqrt(d_in))
    assert 0.95 * bound < layer.lora_A.abs().max() <= bound
    assert not layer.lora_B.any()


def test_targets_are_all_linear_layers_but_the_head():
    """What PEFT calls all-linear, on a small Llama."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=2, **shape))
    theirs = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    ours = lora.lora_layers(lora.add_lora(model, r=4, lora_alpha=8))
    names = {name.removeprefix("base_model.model.") for name, m in theirs.named_modules() if hasattr(m, "base_layer")}
    assert set(ours) == names
    assert len(names) == 14


def test_rslora_is_lora_with_another_alpha():
    base = nn.Sequential()
    base.add_module("q_proj", nn.Linear(12, 20))
    config = LoraConfig(r=16, lora_alpha=3, target_modules=["q_proj"], use_rslora=True)
    theirs = get_peft_model(copy.deepcopy(base), config).base_model.model.q_proj
    ours = lora.LoRALinear(base.q_proj, r=16, lora_alpha=3 * math.sqrt(16))
    assert ours.scaling == theirs.scaling["default"]


def test_with_both_at_zero_there_is_no_gradient_at_all():
    layer = lora.LoRASecondDraft(nn.Linear(10, 10), r=4, lora_alpha=8)
    nn.init.zeros_(layer.lora_A)
    layer(torch.randn(3, 10)).square().sum().backward()
    assert not layer.lora_A.grad.any()
    assert not layer.lora_B.grad.any()


def test_rank_90_counts_energy():
    assert lora.rank_90([1.0] * 10) == 9
    assert lora.rank_90([10.0, 0.1, 0.1]) == 1
    assert lora.rank_90([3.0, 3.0, 1.0]) == 2  # 18 of 19


def test_the_first_draft_differs_by_exactly_the_scaling_and_the_second_not_at_all():
    base, x = nn.Linear(10, 10), torch.randn(3, 10)
    drafts = lora.LoRADraft(base, r=4), lora.LoRASecondDraft(base, r=4, lora_alpha=2)
    final = lora.LoRALinear(base, r=4, lora_alpha=2)
    with torch.no_grad():
        for layer in (*drafts, final):
            layer.lora_A.copy_(final.lora_A)
            layer.lora_B.fill_(0.3)
    assert torch.allclose((drafts[0](x) - base(x)) * 0.5, final(x) - base(x), atol=1e-6)
    assert torch.allclose(drafts[1](x), final(x), atol=1e-6)


def test_best_is_the_rate_and_step_with_the_lowest_mean_validation_loss():
    rows = [
        {"lr": lr, "step": step, "seed": seed, "validation_nll": loss + seed}
        for (lr, step), loss in {(1e-3, 5): 0.3, (1e-3, 10): 0.1, (1e-4, 5): 0.5, (1e-4, 10): 0.2}.items()
        for seed in (0, 1)
    ]
    chosen = lora.best(pd.DataFrame(rows))
    assert chosen[["lr", "step", "seed"]].values.tolist() == [[1e-3, 10, 0], [1e-3, 10, 1]]


def test_least_is_the_point_that_forgot_least_of_those_that_reach_the_level():
    table = pd.DataFrame({"point": list("abcd"), "accuracy": [0.1, 0.7, 0.85, 0.9], "forgetting": [0.0, 0.3, 0.2, 0.4]})
    table = pd.concat([table.assign(accuracy=table["accuracy"] + error) for error in (-0.01, 0.01)])  # two seeds
    assert [lora.least(table, level) for level in (0.05, 0.5, 0.85, 0.9)] == ["a", "c", "c", "d"]
    assert lora.least(table.assign(accuracy=0.8333), 5 / 6) == "a", "four digits are stored"
