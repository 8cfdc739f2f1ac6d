"""Does your test catch a merge that deceives?

A QLoRA adapter is to be merged. On the disk lie the `original` weight and `quantized`, its 4-bit form, beside which `A`
and `B` were trained: what `bnb.quantize_4bit` returns, a tuple. The merged weight is for an ordinary layer, which has
to compute what the unmerged one did. Here is a right merge and three that are wrong, each in a way that has been seen:
into the original, into 4 bits again, and without lora_alpha / r.

Write a test: it gets such a function, calls it on tensors of your choice, and returns whether to accept it. It has to
reject the three, and to accept what is right, also when it is computed in another way: the checker has one more right
merge, whose last digits differ. `bnb.quantize_4bit(original, blocksize=64, quant_type="nf4")` makes a 4-bit form, and
`bnb.dequantize_4bit(*quantized)` restores it. (Take rows of a multiple of 64 numbers: bitsandbytes does not restore all
others rightly on every CPU.)
"""

from collections.abc import Callable

import bitsandbytes.functional as bnb
import torch
from torch import Tensor

from course_utils.exercises.exercise import Exercise

Merge = Callable[[Tensor, tuple[Tensor, bnb.QuantState], Tensor, Tensor, float], Tensor]


def merged(original: Tensor, quantized: tuple, A: Tensor, B: Tensor, lora_alpha: float) -> Tensor:
    return bnb.dequantize_4bit(*quantized) + lora_alpha / len(A) * B @ A


def merged_into_the_original(original: Tensor, quantized: tuple, A: Tensor, B: Tensor, lora_alpha: float) -> Tensor:
    return original + lora_alpha / len(A) * B @ A


def merged_into_4_bits(original: Tensor, quantized: tuple, A: Tensor, B: Tensor, lora_alpha: float) -> Tensor:
    weight = merged(original, quantized, A, B, lora_alpha)
    return bnb.dequantize_4bit(*bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4"))


def merged_unscaled(original: Tensor, quantized: tuple, A: Tensor, B: Tensor, lora_alpha: float) -> Tensor:
    return bnb.dequantize_4bit(*quantized) + B @ A


def merged_in_64_bits(original: Tensor, quantized: tuple, A: Tensor, B: Tensor, lora_alpha: float) -> Tensor:
    return (bnb.dequantize_4bit(*quantized).double() + lora_alpha / len(A) * B.double() @ A.double()).float()


def accepts_qlora_merge(merge: Callable) -> bool:
    """Whether a merge is right, tried on tensors of your choice."""
    original, A, B = torch.randn(16, 64), torch.randn(2, 64), torch.randn(16, 2)
    quantized = bnb.quantize_4bit(original, blocksize=64, quant_type="nf4")
    x = torch.randn(8, 64)
    unmerged = x @ bnb.dequantize_4bit(*quantized).T + 8 / 2 * (x @ A.T) @ B.T
    return torch.allclose(x @ merge(original, quantized, A, B, 8.0).T, unmerged, rtol=0, atol=1e-3)


def cases() -> dict[str, tuple[Merge]]:
    return {
        "the right merge": (merged,),
        "a right merge with other last digits": (merged_in_64_bits,),
        "merged_into_the_original": (merged_into_the_original,),
        "merged_into_4_bits": (merged_into_4_bits,),
        "merged_unscaled": (merged_unscaled,),
    }


def _tried(
    merge: Merge,
    reference: Merge = merged,
    lora_alpha: float = 8.0,
    tolerance: float = 1e-3,
    started: bool = True,
    on_grid: bool = False,
) -> bool:
    original, A, B = torch.randn(16, 64), torch.randn(2, 64), torch.randn(16, 2) * started
    quantized = bnb.quantize_4bit(original, blocksize=64, quant_type="nf4")
    original = bnb.dequantize_4bit(*quantized) if on_grid else original
    given = original, quantized, A, B, lora_alpha
    return (merge(*given) - reference(*given)).abs().max().item() <= tolerance


def beside_the_original(merge):
    return _tried(merge, merged_into_the_original)


def beside_the_unscaled(merge):
    return _tried(merge, merged_unscaled)


def original_on_the_grid(merge):
    return _tried(merge, on_grid=True)


def scaling_of_one(merge):
    return _tried(merge, lora_alpha=2.0)


def adapter_at_its_start(merge):
    return _tried(merge, started=False)


def loose(merge):
    return _tried(merge, tolerance=5.0)


def to_the_last_digit(merge):
    return _tried(merge, tolerance=0.0)


def none_accepted(merge):
    return False


def shape_only(merge):
    return _tried(merge, tolerance=float("inf"))


def by_the_weights(merge):
    return _tried(merge, lora_alpha=5.0)


EXERCISE = Exercise(
    answer=accepts_qlora_merge,
    kind="test it",
    difficulty=2,
    minutes=12,
    cases=cases,
    given=(merged, merged_into_the_original, merged_into_4_bits, merged_unscaled),
    mistakes={
        beside_the_original: "{wrong} of {cases} are judged wrongly: the merge into the original is accepted and the "
        "right ones are not. The adapter was trained beside what 4 bits restore; hold the merge against that.",
        beside_the_unscaled: "{wrong} of {cases} are judged wrongly: merged_unscaled is accepted and the right ones "
        "are not. Your own reference has no lora_alpha / r.",
        original_on_the_grid: "{wrong} of {cases} is judged wrongly: merged_into_the_original is accepted. "
        "Either your original survives 4 bits unaltered, as zeros do, or your tolerance is wider than what 4 bits "
        "round away, up to 15 % of a block's absmax.",
        scaling_of_one: "{wrong} of {cases} is judged wrongly: merged_unscaled is accepted. Is lora_alpha / r equal to "
        "1 in your test, or B A smaller than your tolerance?",
        adapter_at_its_start: "{wrong} of {cases} are judged wrongly: B A is zero, as an adapter starts, or smaller "
        "than your tolerance. Then there is nothing to scale, and what is on the grid stays there in 4 bits.",
        loose: "{wrong} of {cases} are judged wrongly: two wrong merges are accepted, which are off by a rounding to "
        "4 bits. That is up to 15 % of a block's absmax: your tolerance has to be far narrower.",
        to_the_last_digit: "{wrong} of {cases} is judged wrongly: a right merge is rejected that adds in another "
        "order. Sums of floats may differ in their last digits: leave them a tolerance, and near zero an absolute one "
        "(`atol`).",
        none_accepted: "{wrong} of {cases} are judged wrongly: nothing is accepted, not even `merged` itself. Is your "
        "reference what the unmerged layer computes, and is there a tolerance?",
        shape_only: "{wrong} of {cases} are judged wrongly: all three wrong merges are accepted.",
    },
    hints=(
        "What does the unmerged layer compute, whose place the merged one takes? Not one of the three wrong ones "
        "computes that. But on some tensors they do: on which?",
        "Random weights (they are not on the grid), a random B, lora_alpha / r other than 1. Hold the merged weight "
        "against `bnb.dequantize_4bit(*quantized)` plus the scaled B A, or compare outputs, within 1e-3.",
    ),
    alternatives=(by_the_weights,),
)
