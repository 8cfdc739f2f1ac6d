"""What are the weights of a merged IA³?

The lesson's toy had its factors behind a layer, and multiplied the rows of `W`. That merges the keys and the values. In
front of `down_proj` the factors multiply the layer's *inputs* instead, and the layers of some models also add a bias:
`y = W x + b`.

Write the merge of one layer. It returns the new weight and the new bias (None where there is none), so that the plain
layer with them does what the layer with its factors did: `W (x * scale) + b` with `feedforward`, `(W x + b) * scale`
without. The weight and the bias that you were given have to stay as they are.
"""

from collections.abc import Callable

import torch

from course_utils.exercises.exercise import Exercise

Merged = tuple[torch.Tensor, torch.Tensor | None]


def merged_ia3(
    weight: torch.Tensor, bias: torch.Tensor | None, scale: torch.Tensor, feedforward: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """New weight and bias. weight: (d_out, d_in), bias: (d_out,); scale: (d_in,) with `feedforward`, else (d_out,)."""
    if feedforward:
        return weight * scale, bias
    return weight * scale[:, None], None if bias is None else bias * scale


def cases() -> dict[str, tuple[torch.Tensor | bool | None, ...]]:
    torch.manual_seed(0)
    weight, bias, scale = torch.randn(4, 4), torch.randn(4), 1 + torch.randn(4)  # square: a wrong side raises nothing
    return {
        "keys, no bias": (weight, None, scale, False),
        "keys, with a bias": (weight, bias, scale, False),
        "down_proj, no bias": (weight, None, scale, True),
        "down_proj, with a bias": (weight, bias, scale, True),
    }


def outcome(
    answer: Callable[..., Merged],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    scale: torch.Tensor,
    feedforward: bool,
) -> dict[str, torch.Tensor | str]:
    """The two by name, "none" if there is no bias.

    Raises:
        ValueError: they are not two.
    """
    merged = answer(weight, bias, scale, feedforward)
    if not isinstance(merged, (tuple, list)) or len(merged) != 2:
        raise ValueError("Return two things, the new weight and the new bias: `return weight, bias`.")
    return {"new weight": merged[0], "new bias": "none" if merged[1] is None else merged[1]}


def always_rows(weight, bias, scale, feedforward):
    return weight * scale[:, None], bias if bias is None or feedforward else bias * scale


def always_columns(weight, bias, scale, feedforward):
    return weight * scale, bias if bias is None or feedforward else bias * scale


def sides_exchanged(weight, bias, scale, feedforward):
    return merged_ia3(weight, bias, scale, not feedforward)


def bias_left(weight, bias, scale, feedforward):
    return merged_ia3(weight, bias, scale, feedforward)[0], bias


def bias_always(weight, bias, scale, feedforward):
    return merged_ia3(weight, bias, scale, feedforward)[0], None if bias is None else bias * scale


def added(weight, bias, scale, feedforward):
    return merged_ia3(weight, bias, 1 + scale, feedforward)


def in_place(weight, bias, scale, feedforward):
    weight *= scale if feedforward else scale[:, None]
    return weight, bias if bias is None or feedforward else bias * scale


def all_in_place(weight, bias, scale, feedforward):
    weight *= scale if feedforward else scale[:, None]
    if bias is not None and not feedforward:
        bias *= scale
    return weight, bias


def by_diagonals(weight, bias, scale, feedforward):
    factors = torch.diag(scale)
    return (
        weight @ factors if feedforward else factors @ weight,
        bias if feedforward or bias is None else factors @ bias,
    )


def by_probing(weight, bias, scale, feedforward):
    def layer(x):
        y = torch.nn.functional.linear(x * scale if feedforward else x, weight, bias)
        return y if feedforward else y * scale

    at_zero = layer(torch.zeros(weight.shape[1]))
    return (layer(torch.eye(weight.shape[1])) - at_zero).T, None if bias is None else at_zero


EXERCISE = Exercise(
    answer=merged_ia3,
    kind="write it",
    difficulty=1,
    minutes=8,
    cases=cases,
    outcome=outcome,
    mistakes={
        always_rows: "Wrong for {wrong} of {cases} layers, {part} off by {off:.0f} %: the rows were multiplied for "
        "down_proj as well. A factor of an input belongs to all that this input is multiplied with.",
        always_columns: "Wrong for {wrong} of {cases} layers, {part} off by {off:.0f} %: the columns were multiplied "
        "for the keys as well. `weight * scale` runs along the last axis, that of the inputs.",
        sides_exchanged: "Wrong for {wrong} of {cases} layers, {part} off by {off:.0f} %: rows and columns are "
        "exchanged. A row makes one output, a column takes one input.",
        bias_left: "Wrong for {wrong} of {cases} layers, {part} off by {off:.0f} %: the factors of the keys stand "
        "behind the bias, and multiply it, too.",
        bias_always: "Wrong for {wrong} of {cases} layers, {part} off by {off:.0f} %: the factors of down_proj stand "
        "in front of the layer, and do not reach its bias.",
        added: "Off by {off:.0f} %: the factors multiply, and start at one; you added them to one.",
        in_place: "All {cases} results are right, but {wrong} weights were changed on the way: `*=` writes into the "
        "weight that it was given. Make a new one.",
        all_in_place: "All {cases} results are right, but {wrong} weights were changed on the way, and a bias: `*=` "
        "writes into what it was given. Make new ones.",
    },
    hints=(
        "Write out one output of `W x` as a sum over the inputs. Where does a factor of that output go, and where a "
        "factor of one input?",
        "`[:, None]` makes a column of the factors, which multiplies rows; without it they multiply columns. The bias "
        "is added after the inputs were multiplied, and before the outputs are.",
    ),
    alternatives=(by_diagonals, by_probing),
)
