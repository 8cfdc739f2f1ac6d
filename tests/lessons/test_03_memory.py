"""What the deeper half of notebook 03 defines, taken out of it and held against closed forms and torch itself."""

import math

import pytest

from course_utils import lessons, memory

half = lessons.definitions("03_memory")


def test_the_best_segments_are_about_the_square_root():
    """With equal sizes of a layer and of its input, checkpoints stand √n apart."""
    assert [half.segmented_gb(n, 1, 1) for n in (1, 4, 100)] == [2, 4, 20]
    assert half.segmented_gb(400, a=1, i=1) == pytest.approx(2 * math.sqrt(400))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_torch_counts_what_is_planned(checkpointing):
    """On another shape than the notebook's."""
    shape = {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 352}
    config = half.LlamaConfig(num_hidden_layers=3, num_attention_heads=4, **shape)
    now = {"method": "full", "precision": "fp32", "attention": "eager", "micro_batch": 4, "length": 128}
    plan = memory.plan(config, checkpointing=checkpointing, **now)
    planned = plan.peak - plan.parts["workspace"]
    assert planned == pytest.approx(half.tracked_peak(config, checkpointing), rel=0.05)


def test_checkpointed_layers_keep_their_inputs_and_one_layer():
    """Of 2,048 tokens, an input is 2,048 x 8,192 numbers of two bytes."""
    layer = half.kept_gb(20, False) - half.kept_gb(19, False)
    apart = half.kept_gb(20, True) - half.kept_gb(19, True)
    assert apart == pytest.approx(2 * 2048 * 8192 / 1e9)
    assert half.kept_gb(20, True) == pytest.approx(20 * apart + layer, rel=0.01)


def test_what_leaves_the_gpu_is_subtracted_where_it_lies():
    """With the optimizer in the backward pass and inputs offloaded, neither is left at any moment."""
    plan = half.torchtune("full", chunked_loss=True, checkpointing=True)
    moments = plan.costs.moments
    inputs = 28 * 2 * 3072 * 2 * 4096
    without = [moments[name].sum() - moments.loc["gradients", name] for name in moments]
    assert half.peak_gib(plan) == plan.peak / 2**30
    assert half.peak_gib(plan, gradients=False) == pytest.approx(max(without) / 2**30)
    expected = max(without[0] - inputs, without[1] - inputs, without[2]) / 2**30
    assert half.peak_gib(plan, gradients=False, inputs=False) == pytest.approx(expected)


def test_constants_are_half_a_bit_for_each_quantized_weight():
    around = 32_000 * 4096 + 65 * 4096  # the embedding and the norms; litgpt quantizes the head, too
    linear = 6_738_415_616 - around
    assert half.constants_gb("Llama-2-7B", "nf4") == pytest.approx(linear * 0.5 / 8 / 1e9, rel=1e-4)
    assert half.constants_gb("Llama-2-7B", "nf4-dq") == pytest.approx(linear * 0.127 / 8 / 1e9, rel=3e-3)  # code tables


def test_both_methods_are_planned_alike_but_for_the_weights():
    table = half.lora_and_qlora("transformers")
    plan = memory.plan("Llama-2-7B", method="qlora", r=32, micro_batch=8)
    assert table.loc["Llama-2-7B", "qlora"] == plan.peak / 1e9
    assert (table["qlora"] < table["lora"]).all()
