"""What is the first to notice the fault?

The lesson's comparison had three steps, and stopped at the first difference: the number of trained *parameters*; the
*outputs* (there the logits) in evaluation mode, after the trained values of one model, moved off their start, had been
copied into the other; then the *losses* of five steps of AdamW, in training mode, on the same batches. If all were
equal it said *nothing*.

Here are a right DoRA layer and five wrong ones, with the same frozen base. Predict what it says of each: a dict from
the name of a class to one of the words in italics. The checker compares each of the five with `Right`, and looks.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from course_utils.exercises.exercise import Exercise

WORDS = "parameters", "outputs", "losses", "nothing"


class Right(nn.Module):
    """y = m (W + s B A) / norm(W + s B A) x; the norm is a constant when gradients are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 4, bias=False).requires_grad_(False)
        self.A, self.B = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(4, 2))
        self.m, self.scaling = nn.Parameter(self.base.weight.norm(dim=1)), 0.25

    def norm(self, adapted: torch.Tensor) -> torch.Tensor:
        return adapted.norm(dim=1).detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        adapted = self.base.weight + self.scaling * self.B @ self.A
        return functional.linear(x, (self.m / self.norm(adapted))[:, None] * adapted)


class NoScaling(Right):
    def __init__(self) -> None:
        super().__init__()
        self.scaling = 1.0


class NormHasGradient(Right):
    def norm(self, adapted: torch.Tensor) -> torch.Tensor:
        return adapted.norm(dim=1)


class StartsAtOne(Right):
    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.ones(4))


class OneLength(Right):
    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(self.base.weight.norm()[None])  # one number, for all four rows


class WithDropout(Right):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.dropout(x, 0.1, training=self.training))


FAULTS = (NoScaling, NormHasGradient, StartsAtOne, OneLength, WithDropout)


def first_noticed() -> dict[str, str]:
    """Of each faulty class what the comparison says."""
    return {
        "NoScaling": "outputs",
        "NormHasGradient": "losses",
        "StartsAtOne": "nothing",
        "OneLength": "parameters",
        "WithDropout": "losses",
    }


def cases() -> dict[str, tuple]:
    return {"the five faults": ()}


def outcome(answer: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What is said of each fault.

    Raises:
        ValueError: a fault is missing, or a word is another.
    """
    said, faults = answer(), [fault.__name__ for fault in FAULTS]
    if not isinstance(said, dict) or {*said} != {*faults}:
        raise ValueError(f"Return a dict with these names as keys: {', '.join(map(repr, faults))}.")
    if unknown := sorted({str(word) for word in said.values()} - {*WORDS}):
        raise ValueError(f"The comparison never says {', '.join(unknown)}; its words are {', '.join(WORDS)}.")
    return {fault: said[fault] for fault in faults}


def start_is_seen():
    return {**first_noticed(), "StartsAtOne": "outputs"}


def as_at_the_start():
    return {**first_noticed(), "NoScaling": "losses"}


def gradients_in_outputs():
    return {**first_noticed(), "NormHasGradient": "outputs"}


def constants_unseen():
    return {**first_noticed(), "NormHasGradient": "nothing"}


def hidden_by_broadcasting():
    return {**first_noticed(), "OneLength": "outputs"}


def dropout_in_outputs():
    return {**first_noticed(), "WithDropout": "outputs"}


def dropout_unseen():
    return {**first_noticed(), "WithDropout": "nothing"}


def all_in_outputs():
    return dict.fromkeys(first_noticed(), "outputs") | {"OneLength": "parameters"}


def planted():
    def said(fault: type[Right]) -> str:
        layers = []
        for layer_class in (Right, fault):
            torch.manual_seed(0)
            layers.append(layer_class())
        right, wrong = (list(layer.parameters())[1:] for layer in layers)  # the first is the base
        if sum(p.numel() for p in right) != sum(p.numel() for p in wrong):
            return "parameters"
        with torch.no_grad():
            for a, b in zip(right, wrong, strict=True):
                b.copy_(a.add_(0.1 * torch.randn_like(a)))
        x, y = torch.randn(8, 6), torch.randn(8, 4)
        if (layers[0].eval()(x) - layers[1].eval()(x)).abs().max().item() > 1e-6:
            return "outputs"
        first, second = (losses(layer.train(), x, y) for layer in layers)
        return "losses" if max(abs(a - b) for a, b in zip(first, second, strict=True)) > 1e-6 else "nothing"

    def losses(layer: Right, x: torch.Tensor, y: torch.Tensor) -> list[float]:
        optimizer, found = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], lr=0.01), []
        for _ in range(5):
            optimizer.zero_grad()
            loss = (layer(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    return {fault.__name__: said(fault) for fault in FAULTS}


EXERCISE = Exercise(
    answer=first_noticed,
    kind="find it",
    difficulty=2,
    minutes=10,
    cases=cases,
    outcome=outcome,
    given=(Right, *FAULTS),
    mistakes={
        start_is_seen: "{parts} of {all_parts} wrong: m starts at another value in StartsAtOne, but before anything "
        "is computed it gets that of Right. The lesson's DoRA cell compared the starts for this reason.",
        as_at_the_start: "{parts} of {all_parts} wrong: with B at zero the scaling would change no output. The "
        "comparison moves B off zero first.",
        gradients_in_outputs: "{parts} of {all_parts} wrong: `detach` changes no value on the way forward, only "
        "what comes back.",
        constants_unseen: "{parts} of {all_parts} wrong: the norm holds A and B. With a gradient through it, they "
        "take another step.",
        hidden_by_broadcasting: "{parts} of {all_parts} wrong: one number for all four rows works by broadcasting, "
        "and would change the outputs; but they are not what is compared first.",
        dropout_in_outputs: "{parts} of {all_parts} wrong: outputs are compared in evaluation mode, where dropout "
        "does nothing.",
        dropout_unseen: "{parts} of {all_parts} wrong: the steps are taken in training mode, where dropout works.",
        all_in_outputs: "{parts} of {all_parts} wrong: every fault but that of the count is said to change the "
        "outputs. Ask of each whether it changes what is computed, or what comes back, or only where training starts.",
    },
    hints=(
        "Take one fault at a time, and go through the three steps. What of the faulty layer is overwritten before the "
        "second? In which mode is the third?",
        "A count sees how many numbers are trained, not their values. Outputs see all that changes the forward pass "
        "with the same trained values. Losses see other gradients as well. What is left, nobody sees.",
    ),
    alternatives=(planted,),
)
