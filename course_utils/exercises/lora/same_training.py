"""Which settings train the same with another lora_alpha?

The second half of the lesson has a rule for Adam: what the scaling loses, rates and the start of `A` can make up for,
exactly. Use it. `settings` are those of a training: `lora_alpha`, the rates `lr_a` and `lr_b`, and `start`, by which
the initial `A` is multiplied. (`B` starts at zero.) Return the settings of a training with the `lora_alpha` that is
wanted, whose loss is the same at every step.

More than one answer is right, and the checker does not ask for the numbers. It trains a toy with yours.
"""

from collections.abc import Callable

import torch

from course_utils.exercises.exercise import Exercise

Settings = dict[str, float]


def same_training(settings: dict[str, float], lora_alpha: float) -> dict[str, float]:
    """Settings with that lora_alpha under which every loss is as it was; the keys are those of `settings`."""
    factor = settings["lora_alpha"] / lora_alpha
    return settings | {"lora_alpha": lora_alpha, "lr_b": settings["lr_b"] * factor}


def toy_losses(lora_alpha: float, lr_a: float, lr_b: float, start: float) -> list[float]:
    """Ten losses of a LoRA layer of rank 2 that is trained with Adam, in 64-bit numbers."""
    torch.manual_seed(0)
    x, target = torch.randn(20, 6).double(), torch.randn(20, 5).double()
    A = (start * torch.randn(2, 6).double()).requires_grad_()
    B = torch.zeros(5, 2).double().requires_grad_()
    optimizer = torch.optim.Adam([{"params": [A], "lr": lr_a}, {"params": [B], "lr": lr_b}], eps=1e-30)
    losses = []
    for _ in range(10):
        loss = (lora_alpha / 2 * x @ A.T @ B.T - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def cases() -> dict[str, tuple[Settings, float]]:
    usual = {"lora_alpha": 2.0, "lr_a": 0.05, "lr_b": 0.05, "start": 1.0}
    plus = {"lora_alpha": 4.0, "lr_a": 0.02, "lr_b": 0.2, "start": 0.5}
    return {"from 2 to 8": (usual, 8.0), "from 4 to 1, with LoRA+": (plus, 1.0)}


def outcome(answer: Callable[[Settings, float], Settings], settings: Settings, lora_alpha: float) -> dict[str, float]:
    """The last loss beside that of the old settings, in percent, and the lora_alpha.

    Raises:
        ValueError: settings are missing, or there are others.
    """
    found = answer(settings, lora_alpha)
    if not isinstance(found, dict) or found.keys() != settings.keys():
        raise ValueError(f"Return a dict with the keys {', '.join(settings)}.")
    old, new = toy_losses(**settings), toy_losses(**found)
    return {"lora_alpha": found["lora_alpha"], "tenth loss (percent of the old)": 100 * new[-1] / old[-1]}


def alpha_alone(settings, lora_alpha):
    return settings | {"lora_alpha": lora_alpha}


def unchanged(settings, lora_alpha):
    return dict(settings)


def _scaled(settings: Settings, lora_alpha: float, **powers: float) -> Settings:
    factor = settings["lora_alpha"] / lora_alpha
    return settings | {"lora_alpha": lora_alpha} | {name: settings[name] * factor**p for name, p in powers.items()}


def wrong_way(settings, lora_alpha):
    return _scaled(settings, lora_alpha, lr_b=-1)


def both_rates(settings, lora_alpha):
    return _scaled(settings, lora_alpha, lr_a=1, lr_b=1)


def roots_without_the_start(settings, lora_alpha):
    return _scaled(settings, lora_alpha, lr_a=0.5, lr_b=0.5)


def rate_of_a_alone(settings, lora_alpha):
    return _scaled(settings, lora_alpha, lr_a=1)


def start_alone(settings, lora_alpha):
    return _scaled(settings, lora_alpha, start=1)


def by_a(settings, lora_alpha):
    return _scaled(settings, lora_alpha, lr_a=1, start=1)


def by_roots(settings, lora_alpha):
    return _scaled(settings, lora_alpha, lr_a=0.5, lr_b=0.5, start=0.5)


EXERCISE = Exercise(
    answer=same_training,
    kind="write it",
    difficulty=2,
    minutes=10,
    cases=cases,
    outcome=outcome,
    given=(toy_losses,),
    mistakes={
        alpha_alone: "The tenth loss is {yours:.1f} % of what it was: only lora_alpha was changed, and nothing makes "
        "up for it.",
        unchanged: "lora_alpha is still {yours:g}; {expected:g} was wanted.",
        wrong_way: "The tenth loss is {yours:.1f} % of what it was: the rate of B has to grow where lora_alpha "
        "shrinks.",
        both_rates: "The tenth loss is {yours:.1f} % of what it was: the whole factor went to both rates, which makes "
        "up for it twice.",
        roots_without_the_start: "The tenth loss is {yours:.1f} % of what it was: near, but a faster A that starts as "
        "before is not a larger A. Its start has to be multiplied, too.",
        rate_of_a_alone: "The tenth loss is {yours:.1f} % of what it was: the rate of A alone does not make A larger. "
        "Its start has to be multiplied, too.",
        start_alone: "The tenth loss is {yours:.1f} % of what it was: A starts larger, but Adam still moves it by its "
        "old rate, which is now less of it.",
    },
    hints=(
        "What is added to the output is lora_alpha / r times B A. If lora_alpha is divided by four, B A has to be "
        "four times as large, at every step. Which of the two can be made so with a rate alone?",
        "Adam's steps have the size of the rate, whatever the size of the gradients. B starts at zero, so with four "
        "times the rate it is four times as large at every step.",
    ),
    alternatives=(by_a, by_roots),
)
