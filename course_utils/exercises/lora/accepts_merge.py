"""Does your test catch what is wrong?

A merge takes `weight`, `A`, `B` and `lora_alpha`, and returns a new weight: `weight` plus (lora_alpha / r) B A. Here is
a right one and three that are wrong, each in a way that has been seen in real code. (One spoils the weight that it was
given, so that it cannot be switched back.)

Write a test: it gets such a function, calls it on tensors of your choice, and returns whether to accept it. It has to
reject the three, and to accept what is right, also when it is computed in another way: the checker has one more right
merge, whose last digits differ.
"""

from collections.abc import Callable

import torch

from course_utils.exercises.exercise import Exercise

Merge = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


def merged(weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, lora_alpha: float) -> torch.Tensor:
    return weight + lora_alpha / len(A) * B @ A


def merged_unscaled(weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, lora_alpha: float) -> torch.Tensor:
    return weight + B @ A


def merged_in_place(weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, lora_alpha: float) -> torch.Tensor:
    weight += lora_alpha / len(A) * B @ A
    return weight


def merged_in_16_bits(weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, lora_alpha: float) -> torch.Tensor:
    return (weight + lora_alpha / len(A) * B @ A).bfloat16().float()


def merged_in_64_bits(weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, lora_alpha: float) -> torch.Tensor:
    return (weight.double() + B.double() @ A.double() * (lora_alpha / len(A))).float()


def accepts_merge(merge: Callable) -> bool:
    """Whether a merge is right, tried on tensors of your choice."""
    weight, A, B = torch.randn(20, 30), torch.randn(3, 30), torch.randn(20, 3)
    before = weight.clone()
    after = merge(weight, A, B, 8.0)
    return torch.equal(weight, before) and torch.allclose(after, before + 8 / 3 * B @ A, rtol=0, atol=1e-4)


def cases() -> dict[str, tuple[Merge]]:
    return {
        "the right merge": (merged,),
        "a right merge with other last digits": (merged_in_64_bits,),
        "merged_unscaled": (merged_unscaled,),
        "merged_in_place": (merged_in_place,),
        "merged_in_16_bits": (merged_in_16_bits,),
    }


def _tried(merge: Merge, lora_alpha: float = 8.0, tolerance: float = 1e-4, copies: bool = True) -> bool:
    weight, A, B = torch.randn(20, 30), torch.randn(3, 30), torch.randn(20, 3)
    before = weight.clone()
    expected = weight + lora_alpha / len(A) * B @ A
    after = merge(weight, A, B, lora_alpha)
    return (not copies or torch.equal(weight, before)) and (after - expected).abs().max().item() <= tolerance


def scaling_of_one(merge):
    return _tried(merge, lora_alpha=3.0)


def result_only(merge):
    return _tried(merge, copies=False)


def loose(merge):
    return _tried(merge, tolerance=0.1)


def to_the_last_digit(merge):
    return _tried(merge, tolerance=0.0)


def none_accepted(merge):
    return False


def shape_only(merge):
    return merge(torch.zeros(4, 5), torch.zeros(2, 5), torch.zeros(4, 2), 8.0).shape == (4, 5)


def in_small_steps(merge):
    weight, A, B = torch.zeros(4, 5), torch.randn(2, 5), torch.randn(4, 2)
    added = merge(weight, A, B, 10.0)
    return not weight.any().item() and all(
        abs(added[i, j].item() - 5 * sum(B[i, k].item() * A[k, j].item() for k in range(2))) < 1e-4
        for i in range(4)
        for j in range(5)
    )


EXERCISE = Exercise(
    answer=accepts_merge,
    kind="test it",
    difficulty=2,
    minutes=12,
    cases=cases,
    given=(merged, merged_unscaled, merged_in_place, merged_in_16_bits),
    mistakes={
        scaling_of_one: "{wrong} of {cases} are judged wrongly: merged_unscaled is accepted. Is lora_alpha / r equal "
        "to 1 in your test, or B A zero?",
        result_only: "{wrong} of {cases} are judged wrongly: merged_in_place is accepted. Its result is right; look "
        "at the weight that it was given.",
        loose: "{wrong} of {cases} are judged wrongly: merged_in_16_bits is accepted. Either your tolerance is wider "
        "than what bf16 rounds away, up to 1/256 of a number, or your numbers are so round that it rounds nothing.",
        to_the_last_digit: "{wrong} of {cases} are judged wrongly: a right merge is rejected, which adds in another "
        "order. Sums of floats may differ in their last digits: leave them a tolerance.",
        none_accepted: "{wrong} of {cases} are judged wrongly: nothing is accepted, not even `merged` itself. Was the "
        "weight cloned before the call, and is there a tolerance?",
        shape_only: "{wrong} of {cases} are judged wrongly: all three wrong merges are accepted.",
    },
    hints=(
        "For each of the three: on which tensors does it do the same as the right one? Choose others.",
        "lora_alpha / r must not be 1 and B not zero; keep a clone of the weight; compare within a tolerance that is "
        "wider than fp32's rounding (about 1e-7 of a number) and narrower than bf16's (about 4e-3).",
    ),
    alternatives=(in_small_steps,),
)
