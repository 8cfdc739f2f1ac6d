"""Which comparison notices which fault?

The lesson held its layer against PEFT's in four ways: the *count* of trainable parameters, the *outputs* at the start,
the *losses* of five training steps, and the *updates* that a merge would add after them. Here is a right layer and four
wrong ones, which start from the same `A` and `B`, neither of them zero, and see the same batches. The right one is the
reference.

Predict which comparisons notice which fault: a dict from the name of the class to the names of the comparisons, such as
`{"NoScaling": ("count", "updates"), ...}`. The checker plants the faults and looks.
"""

from collections.abc import Callable

import torch
from torch import nn

from course_utils.exercises.exercise import Exercise

COMPARISONS, WORDS = ("count", "outputs", "losses", "updates"), ("unnoticed", "noticed")


class Right(nn.Module):
    """A LoRA layer, beside which the others are held."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 4).requires_grad_(False)
        self.A, self.B = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(4, 2))
        self.scaling = 0.25

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.A.T @ self.B.T * self.scaling

    def update(self) -> torch.Tensor:
        return self.scaling * self.B @ self.A


class NoScaling(Right):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.A.T @ self.B.T


class MergesUnscaled(Right):
    def update(self) -> torch.Tensor:
        return self.B @ self.A


class FrozenA(Right):
    def __init__(self) -> None:
        super().__init__()
        self.A.requires_grad_(False)


class DetachedA(Right):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + (x @ self.A.T).detach() @ self.B.T * self.scaling


FAULTS = (NoScaling, MergesUnscaled, FrozenA, DetachedA)


def noticed() -> dict[str, tuple[str, ...]]:
    """Of each faulty class the comparisons that differ from those of `Right`."""
    return {
        "NoScaling": ("outputs", "losses", "updates"),
        "MergesUnscaled": ("updates",),
        "FrozenA": ("count", "losses", "updates"),
        "DetachedA": ("losses", "updates"),
    }


def cases() -> dict[str, tuple]:
    return {"the four faults": ()}


def outcome(answer: Callable[[], dict[str, tuple[str, ...]]]) -> dict[str, dict[str, str]]:
    """What is said to notice what, one by one.

    Raises:
        ValueError: a fault is missing, or a comparison has another name.
    """
    said, faults = answer(), [fault.__name__ for fault in FAULTS]
    if not isinstance(said, dict) or sorted(said) != sorted(faults):
        raise ValueError(f"Return a dict with the keys {', '.join(faults)}.")
    said = {fault: (names,) if isinstance(names, str) else names for fault, names in said.items()}
    if unknown := sorted({str(name) for names in said.values() for name in names} - {*COMPARISONS}):
        raise ValueError(f"There is no comparison {', '.join(unknown)}; they are {', '.join(COMPARISONS)}.")
    return {fault: {name: WORDS[name in said[fault]] for name in COMPARISONS} for fault in faults}


def outputs_tell_all():
    return {**noticed(), "FrozenA": ("count",), "DetachedA": ()}


def count_sees_detached():
    return {**noticed(), "DetachedA": ("count", "losses", "updates")}


def losses_see_the_merge():
    return {**noticed(), "MergesUnscaled": ("losses", "updates")}


def updates_only_of_update():
    kept = {fault: tuple(name for name in names if name != "updates") for fault, names in noticed().items()}
    return {**kept, "MergesUnscaled": ("updates",)}


def outputs_see_gradients():
    return {**noticed(), "FrozenA": COMPARISONS, "DetachedA": ("outputs", "losses", "updates")}


def planted():
    def compared(layer_class: type[Right]) -> dict[str, object]:
        torch.manual_seed(0)
        layer, x, y = layer_class(), torch.randn(8, 6), torch.randn(8, 4)
        trained = [p for p in layer.parameters() if p.requires_grad]
        optimizer, losses, start = torch.optim.AdamW(trained, lr=0.01), [], layer(x).tolist()
        for _ in range(5):
            optimizer.zero_grad()
            loss = (layer(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        found = sum(p.numel() for p in trained), start, losses, layer.update().tolist()
        return dict(zip(COMPARISONS, found, strict=True))

    right = compared(Right)
    found = {fault.__name__: compared(fault) for fault in FAULTS}
    return {name: tuple(c for c in COMPARISONS if each[c] != right[c]) for name, each in found.items()}


EXERCISE = Exercise(
    answer=noticed,
    kind="find it",
    difficulty=3,
    minutes=12,
    cases=cases,
    outcome=outcome,
    given=(Right, *FAULTS),
    mistakes={
        outputs_tell_all: "{parts} of {all_parts} wrong: equal outputs do not make equal gradients. Without a "
        "gradient for A its training goes another way from the second loss on.",
        count_sees_detached: "{parts} of {all_parts} wrong: the count asks `requires_grad`. In DetachedA the "
        "matrix may be trained; its gradient does not arrive.",
        losses_see_the_merge: "{parts} of {all_parts} wrong: nothing calls `update` while a model is trained, so "
        "the losses of MergesUnscaled are the right ones.",
        updates_only_of_update: "{parts} of {all_parts} wrong: after five steps that went another way, A and B "
        "are others, and so is their product.",
        outputs_see_gradients: "{parts} of {all_parts} wrong: at the start FrozenA and DetachedA compute what is "
        "right. Only what comes back differs.",
    },
    hints=(
        "Take one fault at a time. Does it change what `forward` computes? What reaches `A` on the way back? What "
        "`update` returns?",
        "Whatever changes a gradient changes all losses after the first, and with them `A` and `B`. `detach` does not "
        "touch `requires_grad`.",
    ),
    alternatives=(planted,),
)
