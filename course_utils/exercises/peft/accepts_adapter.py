"""Does your test tell a whole adapter from a broken one?

PEFT loads an empty file with a warning, as the lesson showed, and the base model answers. Write a test that would have
noticed. `weights` is what a file holds, a dict from names to tensors: for each adapted layer `lora_A` of shape (r,
d_in) and `lora_B` of shape (d_out, r). `shapes` has the layers that should have an adapter, with their (d_out, d_in).

Below is what a right file holds, and eight ways in which one breaks. Return whether to accept: reject all eight, and
accept whatever is right. The order of the names and the number format are free, and r may differ from layer to layer
(PEFT's `rank_pattern`). A single `lora_B` may be zero; if all are, the adapter is the base model, and to be rejected.
"""

import torch

from course_utils.exercises.exercise import Exercise

Weights, Shapes = dict[str, torch.Tensor], dict[str, tuple[int, int]]


def whole(shapes: dict[str, tuple[int, int]], r: int = 4) -> dict[str, torch.Tensor]:
    weights = {}
    for layer, (d_out, d_in) in shapes.items():
        weights[f"{layer}.lora_A.weight"] = torch.randn(r, d_in)
        weights[f"{layer}.lora_B.weight"] = torch.randn(d_out, r)
    return weights


def emptied(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {}


def cut_short(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(weights.items())[:-2])


def names_swapped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.translate({ord("A"): "B", ord("B"): "A"}): each for name, each in weights.items()}


def of_a_wider_model(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([each, each], dim=1) if "lora_A" in name else each for name, each in weights.items()}


def of_a_taller_model(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([each, each]) if "lora_B" in name else each for name, each in weights.items()}


def of_a_deeper_model(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return weights | {name.replace("layers.0", "layers.2"): each for name, each in weights.items()}


def of_two_ranks(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: each[:-1] if "lora_A" in name else each for name, each in weights.items()}


def untrained(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: 0 * each if "lora_B" in name else each for name, each in weights.items()}


def accepts_adapter(weights: dict[str, torch.Tensor], shapes: dict[str, tuple[int, int]]) -> bool:
    """Whether a file holds the A and the B of each of these layers, and changes something."""
    parts = {layer: (f"{layer}.lora_A.weight", f"{layer}.lora_B.weight") for layer in shapes}
    if weights.keys() != {name for both in parts.values() for name in both}:
        return False
    for layer, (d_out, d_in) in shapes.items():
        A, B = (weights[name] for name in parts[layer])
        if A.shape[1] != d_in or B.shape != (d_out, len(A)):
            return False
    return any(weights[B].any().item() for _, B in parts.values())


def cases() -> dict[str, tuple[Weights, Shapes]]:
    torch.manual_seed(0)
    shapes = {"layers.0.q_proj": (24, 24), "layers.0.v_proj": (8, 24), "layers.1.q_proj": (24, 24)}
    right = whole(shapes)
    zero = {"layers.0.q_proj.lora_B.weight": torch.zeros(24, 4)}
    files = {
        "a whole file": right,
        "its names in another order": dict(reversed(right.items())),
        "one layer of another rank": right | whole({"layers.0.v_proj": (8, 24)}, r=6),
        "in bf16": {name: each.bfloat16() for name, each in right.items()},
        "one layer that learned nothing": right | zero,
        "all sums below zero": {name: -each.abs() if "lora_B" in name else each for name, each in right.items()},
        "the last layer learned nothing": right | {"layers.1.q_proj.lora_B.weight": torch.zeros(24, 4)},
    }
    files |= {breaks.__name__: breaks(right) for breaks in BREAKS}
    return {name: (weights, shapes) for name, weights in files.items()}


BREAKS = (emptied, cut_short, names_swapped)
BREAKS += (of_a_wider_model, of_a_taller_model, of_a_deeper_model, of_two_ranks, untrained)


def _names(shapes: Shapes) -> list[str]:
    return [f"{layer}.lora_{part}.weight" for layer in shapes for part in "AB"]


def _changes(weights: Weights) -> bool:
    return any(each.any().item() for name, each in weights.items() if "lora_B" in name)


def _fits(name: str, each: torch.Tensor, shapes: Shapes) -> bool:
    layer, part = name.removesuffix(".weight").rsplit(".lora_", 1)
    d_out, d_in = shapes.get(layer, (0, 0))
    return each.shape[1] == d_in if part == "A" else each.shape[0] == d_out


def _one_r(weights: Weights, shapes: Shapes) -> bool:
    """Whether A and B of each layer have the same r."""
    return all(len(weights[f"{layer}.lora_A.weight"]) == weights[f"{layer}.lora_B.weight"].shape[1] for layer in shapes)


def over_the_file(weights, shapes):
    return all(_fits(name, each, shapes) for name, each in weights.items())


def over_the_file_and_not_zero(weights, shapes):
    found = {layer for layer in shapes if f"{layer}.lora_A.weight" in weights and f"{layer}.lora_B.weight" in weights}
    return over_the_file(weights, shapes) and _one_r(weights, found) and _changes(weights)


def names_alone(weights, shapes):
    return sorted(weights) == sorted(_names(shapes))


def names_and_not_zero(weights, shapes):
    return names_alone(weights, shapes) and _changes(weights)


def rows_of_b_alone(weights, shapes):
    return names_and_not_zero(weights, shapes) and all(
        len(weights[f"{layer}.lora_B.weight"]) == d_out for layer, (d_out, _) in shapes.items()
    )


def columns_of_a_alone(weights, shapes):
    return names_and_not_zero(weights, shapes) and all(
        weights[f"{layer}.lora_A.weight"].shape[1] == d_in for layer, (_, d_in) in shapes.items()
    )


def outer_sides_alone(weights, shapes):
    return names_and_not_zero(weights, shapes) and over_the_file(weights, shapes)


def more_layers_accepted(weights, shapes):
    asked = {name: each for name, each in weights.items() if name in _names(shapes)}
    return accepts_adapter(asked, shapes)


def zeros_accepted(weights, shapes):
    return names_alone(weights, shapes) and over_the_file(weights, shapes) and _one_r(weights, shapes)


def last_has_to_change(weights, shapes):
    return accepts_adapter(weights, shapes) and weights[_names(shapes)[-1]].any().item()


def every_layer_has_to_change(weights, shapes):
    return accepts_adapter(weights, shapes) and all(each.any().item() for each in weights.values())


def one_rank(weights, shapes):
    return accepts_adapter(weights, shapes) and len({min(each.shape) for each in weights.values()}) == 1


def in_this_order(weights, shapes):
    return accepts_adapter(weights, shapes) and list(weights) == _names(shapes)


def in_this_format(weights, shapes):
    return accepts_adapter(weights, shapes) and all(each.dtype == torch.float32 for each in weights.values())


def none_accepted(weights, shapes):
    return False


def all_accepted(weights, shapes):
    return True


def by_products(weights, shapes):
    try:
        updates = {layer: weights[f"{layer}.lora_B.weight"] @ weights[f"{layer}.lora_A.weight"] for layer in shapes}
    except (KeyError, RuntimeError):
        return False
    fit = all(updates[layer].shape == shape for layer, shape in shapes.items())
    return fit and len(weights) == 2 * len(shapes) and any(update.abs().max() > 0 for update in updates.values())


EXERCISE = Exercise(
    answer=accepts_adapter,
    kind="test it",
    difficulty=2,
    minutes=12,
    cases=cases,
    given=(whole, *BREAKS),
    mistakes={
        over_the_file: "{wrong} of {cases} are judged wrongly: emptied, cut_short, of_two_ranks and untrained are "
        "accepted. A loop over what is in the file cannot miss anything, and of nothing everything is true: `all([])` "
        "is True. Go over what should be there.",
        over_the_file_and_not_zero: "{wrong} of {cases} is judged wrongly: cut_short is accepted. A loop over what is "
        "in the file misses nothing: go over what should be there.",
        names_alone: "{wrong} of {cases} are judged wrongly: with right names everything is accepted. Look at the "
        "tensors: their four sides, and whether any `lora_B` is not zero.",
        names_and_not_zero: "{wrong} of {cases} are judged wrongly: with right names everything is accepted that is "
        "not zero. Look at the shapes.",
        rows_of_b_alone: "{wrong} of {cases} are judged wrongly: of_a_wider_model and of_two_ranks are accepted. The "
        "outputs are right in number; the columns of A, or its rows, are not.",
        columns_of_a_alone: "{wrong} of {cases} are judged wrongly: of_a_taller_model and of_two_ranks are accepted. "
        "The inputs are right in number; the rows of B, or the rank, are not.",
        outer_sides_alone: "{wrong} of {cases} is judged wrongly: of_two_ranks is accepted. A and B fit the layer, but "
        "not each other: the rows of A are the columns of B.",
        more_layers_accepted: "{wrong} of {cases} is judged wrongly: of_a_deeper_model is accepted. It has all that it "
        "should have, and layers for which there is no place.",
        zeros_accepted: "{wrong} of {cases} is judged wrongly: untrained is accepted. Names and shapes are right, and "
        "every update B A is zero.",
        last_has_to_change: "{wrong} of {cases} is judged wrongly: only the last layer was asked whether it changes "
        "something. It may have learned nothing, if another one has.",
        every_layer_has_to_change: "{wrong} of {cases} are judged wrongly: one layer that learned nothing makes no "
        "broken adapter. Only if all are zero, it is the base model.",
        one_rank: "{wrong} of {cases} is judged wrongly: r may differ from layer to layer. What has to agree is the r "
        "of A and that of its own B.",
        in_this_order: "{wrong} of {cases} is judged wrongly: a file is a dict, and its names may come in any order.",
        in_this_format: "{wrong} of {cases} is judged wrongly: a right adapter in bf16 is rejected.",
        none_accepted: "{wrong} of {cases} are judged wrongly: nothing is accepted, not even a whole file. "
        "Print what your test compares for one: the names end in `.weight`, and in `shapes` d_out comes first.",
        all_accepted: "{wrong} of {cases} are judged wrongly: everything is accepted.",
    },
    hints=(
        "Which names should there be? Make them from `shapes`, and ask for exactly these.",
        "Then four sides for each layer: d_in is the columns of A, d_out the rows of B, and the two others have to be "
        "equal. Last, at least one B with a number that is not zero.",
    ),
    alternatives=(by_products,),
)
