"""How does a merged weight get another task?

An adapter was merged into `weight`, and the base was not kept. Now another task is wanted: take the old adapter out and
merge the new one in. An adapter is a tuple `(A, B, lora_alpha)` with `A` of shape (r, d_in) and `B` of shape (d_out,
r); the two may differ in r and in `lora_alpha`.

Return the new weight. The one you were given has to stay as it is, for others use it.
"""

import torch

from course_utils.exercises.exercise import Exercise

Adapter = tuple[torch.Tensor, torch.Tensor, float]


def swap_adapter(weight: torch.Tensor, old: tuple, new: tuple) -> torch.Tensor:
    """The merged weight with the adapter `new` in the place of `old`; each is (A, B, lora_alpha)."""

    def update(A: torch.Tensor, B: torch.Tensor, lora_alpha: float) -> torch.Tensor:
        return lora_alpha / len(A) * B @ A

    return weight - update(*old) + update(*new)


def cases() -> dict[str, tuple[torch.Tensor | Adapter, ...]]:
    torch.manual_seed(0)

    def adapter(r: int, lora_alpha: float) -> Adapter:
        return torch.randn(r, 5), torch.randn(4, r), lora_alpha

    nothing = torch.zeros(1, 5), torch.zeros(4, 1), 1.0
    return {
        "a weight of zeros, and an old adapter that adds nothing": (torch.zeros(4, 5), nothing, adapter(3, 12.0)),
        "a new adapter that adds nothing": (torch.randn(4, 5), adapter(2, 16.0), nothing),
        "two adapters of different rank": (torch.randn(4, 5), adapter(2, 16.0), adapter(3, 3.0)),
    }


def no_scaling(weight, old, new):
    return weight - old[1] @ old[0] + new[1] @ new[0]


def turned_around(weight, old, new):
    return swap_adapter(weight, new, old)


def only_out(weight, old, new):
    return swap_adapter(weight, old, (new[0], new[1], 0.0))


def only_in(weight, old, new):
    return swap_adapter(weight, (old[0], old[1], 0.0), new)


def scaling_of_the_old(weight, old, new):
    scaling = old[2] / len(old[0])
    return weight - scaling * (old[1] @ old[0]) + scaling * (new[1] @ new[0])


def rank_of_the_old(weight, old, new):
    return swap_adapter(weight, old, (new[0], new[1], new[2] * len(new[0]) / len(old[0])))


def rank_from_b(weight, old, new):
    return weight - old[2] / len(old[1]) * old[1] @ old[0] + new[2] / len(new[1]) * new[1] @ new[0]


def both_in(weight, old, new):
    return swap_adapter(weight, (old[0], old[1], -old[2]), new)


def factors_turned(weight, old, new):
    return weight - old[2] / len(old[0]) * old[0] @ old[1] + new[2] / len(new[0]) * new[0] @ new[1]


def in_a_loop(weight, old, new):
    swapped = weight.clone()
    for sign, (A, B, lora_alpha) in ((-1, old), (1, new)):
        swapped += sign * torch.einsum("or,ri->oi", B, A) * (lora_alpha / A.shape[0])
    return swapped


EXERCISE = Exercise(
    answer=swap_adapter,
    kind="write it",
    difficulty=1,
    minutes=8,
    cases=cases,
    mistakes={
        no_scaling: "Off by {off:.0f} %: both updates lack their lora_alpha / r.",
        turned_around: "Off by {off:.0f} %: the old adapter is added and the new one subtracted.",
        only_out: "Wrong for {wrong} of {cases} inputs, and there off by {off:.0f} %: the old adapter is out, the new "
        "one is not in.",
        only_in: "Off by {off:.0f} %: the new adapter is in, but the old one was not taken out.",
        scaling_of_the_old: "The new adapter is merged with the scaling of the old one, which is off by {off:.0f} %: "
        "each has its own lora_alpha and its own r.",
        rank_of_the_old: "The new adapter is merged with the r of the old one, which is off by {off:.0f} %.",
        rank_from_b: "Off by {off:.0f} %: r was read from the wrong side. B has d_out rows and r columns.",
        both_in: "Off by {off:.0f} %: the old adapter is added once more instead of being taken out.",
        factors_turned: "A B is no update: with A of shape (r, d_in) and B of shape (d_out, r), B A has the shape of "
        "the weight. (Torch says: {error})",
    },
    hints=(
        "What did the merge of the old adapter add to the weight? Exactly that has to go.",
        "Write the update of one adapter first, (lora_alpha / r) times B A, with r read from a shape. Then use it "
        "twice, with different signs.",
    ),
    alternatives=(in_a_loop,),
)
