"""What does LoRA add to an embedding?

An embedding is a matrix, too: `weight` has a row for each token, and the layer looks up rows instead of multiplying.
LoRA puts `A` of shape (r, tokens) and `B` of shape (width, r) beside it. Added to the table is `B A`, turned on its
side, times the usual scaling.

Write the forward pass. The ids may have any shape; the result has that shape, and the width behind it.
"""

import torch
from torch.nn import functional

from course_utils.exercises.exercise import Exercise


def lora_embedding(
    ids: torch.Tensor, weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, lora_alpha: float
) -> torch.Tensor:
    """The embeddings of `ids`. weight: (tokens, width), A: (r, tokens), B: (width, r)."""
    scaling = lora_alpha / A.shape[0]
    return weight[ids] + scaling * A.T[ids] @ B.T


def cases() -> dict[str, tuple[torch.Tensor | float, ...]]:
    torch.manual_seed(0)
    weight, A, B = torch.randn(11, 5), torch.randn(2, 11), torch.randn(5, 2)
    ids = torch.tensor([[3, 10, 3], [0, 7, 1]])
    A, B = A.requires_grad_(), B.requires_grad_()
    return {
        "a table of zeros": (ids[0], torch.zeros(11, 5), A, B, 16.0),
        "one row of ids": (ids[0], weight, A, B, 16.0),
        "two rows of ids": (ids, weight, A, B, 3.0),
    }


def no_scaling(ids, weight, A, B, lora_alpha):
    return weight[ids] + A.T[ids] @ B.T


def not_divided(ids, weight, A, B, lora_alpha):
    return weight[ids] + lora_alpha * A.T[ids] @ B.T


def adapter_alone(ids, weight, A, B, lora_alpha):
    return lora_alpha / A.shape[0] * A.T[ids] @ B.T


def all_scaled(ids, weight, A, B, lora_alpha):
    return lora_alpha / A.shape[0] * (weight[ids] + A.T[ids] @ B.T)


def reshaped(ids, weight, A, B, lora_alpha):
    return weight[ids] + lora_alpha / A.shape[0] * A.reshape(-1, A.shape[0])[ids] @ B.T


def by_library(ids, weight, A, B, lora_alpha):
    return functional.embedding(ids, weight) + functional.embedding(ids, A.T) @ B.T * lora_alpha / len(A)


def whole_table(ids, weight, A, B, lora_alpha):
    return (weight + lora_alpha / len(A) * (B @ A).T)[ids]


EXERCISE = Exercise(
    answer=lora_embedding,
    kind="write it",
    difficulty=1,
    minutes=8,
    cases=cases,
    mistakes={
        no_scaling: "What LoRA adds is {ratio:.3g} times what it should be: lora_alpha / r is missing.",
        not_divided: "What LoRA adds is {ratio:.3g} times what it should be: lora_alpha has to be divided by r.",
        adapter_alone: "Only LoRA's part comes back, wrong in {wrong} of {cases} inputs: the row of the frozen table "
        "is missing. (It is right where that table is zero.)",
        all_scaled: "The frozen row is scaled as well, which moves the result by {off:.0f} % even before training: "
        "lora_alpha / r belongs to B A alone.",
        reshaped: "Off by {off:.0f} %: A was reshaped to (tokens, r), which keeps the order of its numbers and mixes "
        "tokens. It has to be transposed.",
    },
    hints=(
        "An embedding is a linear layer whose input is one-hot. What is left of `A x` if only one entry of x is 1?",
        "Each token has a column of `A`. Look the columns up in the same way as the rows of the table, then multiply "
        "with `B`; mind which side its r is on. The scaling is that of the lesson, with r taken from the shape of `A`.",
    ),
    alternatives=(by_library, whole_table),
)
