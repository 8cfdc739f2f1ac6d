"""The solutions of lesson 03 against bitsandbytes, PEFT, torch, the planner, brute force and closed forms."""

import math

import bitsandbytes.functional as bnb
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from scipy import stats
from torch import nn

from course_utils import intervals, lessons, memory, studies
from course_utils.exercises.qlora import diagnose as diagnosis
from course_utils.exercises.qlora import fitting_33b as fitting
from course_utils.exercises.qlora.accepts_qlora_merge import accepts_qlora_merge
from course_utils.exercises.qlora.bytes_in_4_bits import bytes_in_4_bits
from course_utils.exercises.qlora.normal_float import normal_float
from course_utils.exercises.qlora.qlora_backward import qlora_backward
from course_utils.exercises.qlora.seeds_to_decide import seeds_to_decide
from course_utils.exercises.qlora.twice_checkpointed import twice_checkpointed
from course_utils.exercises.qlora.unstated_settings import unstated_settings
from course_utils.memory.presets import find_config


def test_the_normal_float_of_4_bits_is_that_of_bitsandbytes():
    torch.testing.assert_close(normal_float(4), bnb.get_4bit_type("nf4", device="cpu"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_the_probabilities_of_the_levels_go_in_equal_steps_from_the_outermost_to_the_middle(bits):
    levels, count = normal_float(bits).double(), 2**bits
    outermost = ((1 - 1 / (2 * count - 2)) + (1 - 1 / (2 * count))) / 2
    steps = torch.tensor(stats.norm.cdf(levels * stats.norm.ppf(outermost))).diff()
    left = count // 2 - 1
    assert levels[left] == 0
    assert len(levels) == count
    assert steps[:left].tolist() == pytest.approx([(outermost - 0.5) / left] * left, rel=1e-4)
    assert steps[left:].tolist() == pytest.approx([(outermost - 0.5) / (left + 1)] * (left + 1), rel=1e-4)


@pytest.mark.parametrize("name", ["SmolLM2-360M", "Llama-3-8B", "LLaMA-33B"])
def test_the_bytes_are_those_of_the_planner(name):
    config = find_config(name).to_dict()
    found, parts = bytes_in_4_bits(config), memory.plan(name, method="qlora").parts
    assert found["indexes"] + found["16 bits"] == parts["frozen weights"]
    left_out = 7 * config["num_hidden_layers"] * 4 * (16 + 256 + 1)  # two code tables and a mean for each matrix
    assert found["constants"] + left_out == parts["quantization constants"]


def test_the_constants_of_a_matrix_are_what_bitsandbytes_stores():
    """In a model of one layer, all but its k (of 96 x 192 numbers) are counted away."""
    shape = {"hidden_size": 192, "intermediate_size": 320, "num_hidden_layers": 1, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "vocab_size": 10, "tie_word_embeddings": True}
    stored = 0
    for rows, columns in ((192, 192), (96, 192), (96, 192), (192, 192), (320, 192), (320, 192), (192, 320)):
        _, state = bnb.quantize_4bit(torch.randn(rows, columns), quant_type="nf4", compress_statistics=True)
        stored += state.absmax.nbytes + state.state2.absmax.nbytes
    assert bytes_in_4_bits(shape)["constants"] == stored


def test_the_gradients_are_those_of_pefts_adapter_on_a_4_bit_layer():
    layer = Linear4bit(64, 96, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    layer.load_state_dict({"weight": torch.randn(96, 64)})
    config = LoraConfig(r=3, lora_alpha=12, target_modules=["0"], init_lora_weights=False)
    model = get_peft_model(nn.Sequential(layer).to("cpu"), config)
    adapted = model.base_model.model[0]
    x, dy = torch.randn(5, 64, requires_grad=True), torch.randn(5, 96)
    A, B = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    theirs = torch.autograd.grad(model(x), (x, A, B), dy)
    weight = adapted.base_layer.weight
    ours = qlora_backward(x.detach(), weight.data, weight.quant_state, A.detach(), B.detach(), 12.0, dy)
    for name, gradient in zip("xAB", theirs, strict=True):
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-4)


def test_the_quantizer_of_the_lesson_has_no_fault_and_those_that_are_planted_are_faults():
    lesson, (quantize, dequantize) = lessons.definitions("03_qlora"), diagnosis.quantizer("none")
    weight = torch.randn(3, 128)
    theirs, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    packed, absmax = quantize(weight)
    assert torch.equal(packed, theirs.flatten())
    assert torch.equal(absmax, state.absmax)
    torch.testing.assert_close(dequantize(packed, absmax), bnb.dequantize_4bit(theirs, state).flatten())
    swapped = diagnosis.quantizer("halves")
    assert torch.equal(swapped[1](*swapped[0](weight)), dequantize(packed, absmax))

    def lessons_way_back(packed: torch.Tensor, absmax: torch.Tensor) -> torch.Tensor:
        return lesson.dequantize(packed, absmax, torch.Size([2 * len(packed)]))

    assert diagnosis.diagnose(lesson.quantize, lessons_way_back) == "none"
    assert diagnosis.diagnose(lambda w: lesson.quantize(w, 256), lessons_way_back) == "block"
    assert diagnosis.diagnose(lesson.quantize, lambda *both: 1.002 * lessons_way_back(*both)) == "level"


def test_a_merge_of_peft_into_dequantized_weights_is_accepted_and_one_with_a_wrong_adapter_is_not():
    def pefts(original, quantized, A, B, lora_alpha):
        layer = nn.Linear(*reversed(original.shape), bias=False)
        layer.weight.data = bnb.dequantize_4bit(*quantized)
        model = get_peft_model(nn.Sequential(layer), LoraConfig(r=len(A), lora_alpha=lora_alpha, target_modules=["0"]))
        adapted = model.base_model.model[0]
        adapted.lora_A["default"].weight.data, adapted.lora_B["default"].weight.data = A, B
        return model.merge_and_unload()[0].weight.data

    assert accepts_qlora_merge(pefts)
    assert not accepts_qlora_merge(lambda *given: pefts(*given[:3], -given[3], given[4]))


@pytest.mark.parametrize(
    "differences", [[0.005, 0.02, 0.035], [-0.09, 0.05, 0.0, 0.02], [0.05, 0.06, 0.01], [0.1, 0.2]]
)
def test_with_so_many_seeds_of_that_mean_and_spread_the_rule_of_the_study_decides_and_with_one_less_it_does_not(
    differences,
):
    series, margin = torch.tensor(differences, dtype=torch.float64), 0.03

    def word(count: int) -> str:
        made = torch.linspace(-1, 1, count).double()
        made = series.mean() + series.std() * (made - made.mean()) / made.std()
        return studies.qlora.words(*intervals.mean_and_interval(made.tolist()), margin)

    found = seeds_to_decide(differences, margin)
    assert len(differences) < found < math.inf
    assert [word(found - 1) == "not decided", word(found) == "not decided"] == [True, False]


def test_no_choice_of_the_set_up_can_be_left_out():
    """But r, which is as low as it may be; and the weights are those of the formula of the exercise before."""
    setup = fitting.fitting_33b()
    parts = fitting.planned(**setup).parts
    found = bytes_in_4_bits(find_config("LLaMA-33B").to_dict())
    assert parts["frozen weights"] == found["indexes"] + found["16 bits"]
    assert fitting.outcome(lambda: setup) == {"rules": "kept", "memory": "fits", "plan": "fits"}
    undone = {"method": "lora", "adapter_precision": "fp32", "checkpointing": False, "r": 128}
    for name, value in undone.items():
        assert "GB" in fitting.outcome(lambda changed=setup | {name: value}: changed)["memory"], name
    assert fitting.outcome(lambda: setup | {"micro_batch": 16})["rules"] == "an update sees 256 texts, not 16"
    with pytest.raises(ValueError, match="not to be chosen: length"):
        fitting.outcome(lambda: setup | {"length": 512})


@pytest.mark.parametrize("layers", [1, 2, 7, 12, 30])
def test_what_is_kept_is_what_a_backward_pass_meets(layers):
    """Every length of segments is tried; the last segments are whole, the first one has what is left over."""

    def most(length: int) -> float:
        starts = [0, *range(layers % length or length, layers, length)]
        peak = 0.0
        for start, end in zip(reversed(starts), [layers, *reversed(starts)], strict=False):
            kept = {*starts, *range(start, end)}
            for _ in range(start, end):
                peak = max(peak, 0.25 * len(kept) + 2.0)
                kept.discard(max(kept))
            starts = [one for one in starts if one != start]
        return peak

    assert twice_checkpointed(layers, 2.0, 0.25) == min(most(length) for length in range(1, layers + 1))


@pytest.mark.parametrize("settings", [(True, "nf4", 2**30), (False, "nf4-dq", 2**30), (False, "nf4-dq", 1e9)])
def test_what_was_not_stated_is_found_in_plans(settings):
    checkpointing, precision, unit = settings
    more = {"method": "qlora", "checkpointing": checkpointing, "precision": precision}
    peaks = {n: round(memory.plan("TinyLlama-1.1B", micro_batch=n, **more).peak / unit, 2) for n in (1, 3, 8)}
    assert unstated_settings(peaks) == dict(zip(("checkpointing", "precision", "unit"), settings, strict=True))
