"""At which rate does a run really take its steps?

The Guanaco scripts ask for a warm-up and never get one. So before a run: write down what the rate will be.

`step` is counted from 0 in a run of `total` steps. `warmup` is a number of steps or, if it is below 1, a share of
`total`, rounded up. In transformers, the rate rises in equal parts from 0 *at the first step*, and has reached `lr` at
step number `warmup` (counted from 0). From there `"constant_with_warmup"` stays at `lr`; `"linear"` falls in a straight
line, and `"cosine"` in half a wave, towards 0, which they would reach at step number `total`, right behind the last.
`"constant"` is at `lr` from the first step on, whatever the warm-up.

Return the rate of that step. (What does the first step of a run with a warm-up change in the model?)
"""

import math

import torch
from transformers import get_scheduler

from course_utils.exercises.exercise import Exercise

Case = tuple[int, str, float, int, float]


def rate_of_step(step: int, schedule: str, warmup: float, total: int, lr: float) -> float:
    """The rate of one step, counted from 0, of a run of `total` steps."""
    if schedule == "constant":
        return lr
    warm = math.ceil(warmup * total) if warmup < 1 else int(warmup)
    if step < warm:
        return lr * step / warm
    done = (step - warm) / (total - warm)
    falls = {"constant_with_warmup": 1, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return lr * falls[schedule]


def cases() -> dict[str, tuple[int, str, float, int, float]]:
    return {
        "the Guanaco script, first step": (0, "constant", 0.03, 1875, 2e-4),
        "a warm-up for a constant rate, first step": (0, "constant_with_warmup", 10, 100, 1e-3),
        "a warm-up for a constant rate, fourth step": (3, "constant_with_warmup", 10, 100, 1e-3),
        "a share of the steps that is no whole number": (56, "constant_with_warmup", 0.03, 1875, 2e-4),
        "a warm-up of one step": (5, "constant_with_warmup", 1, 101, 1e-3),
        "a share of the steps that is hardly more than three": (3, "constant_with_warmup", 0.03, 101, 1e-3),
        "no warm-up, first step": (0, "linear", 0, 80, 1e-3),
        "linear, in the middle": (50, "linear", 0.1, 80, 1e-3),
        "linear, last step": (79, "linear", 8, 80, 1e-3),
        "cosine, a third of the way": (30, "cosine", 0, 90, 1e-3),
        "cosine, behind a warm-up": (40, "cosine", 20, 100, 5e-4),
    }


def _rate(step: int, schedule: str, warm: float, total: int, lr: float, last: int = 0) -> float:
    """The rate if the warm-up takes `warm` steps, and 0 is reached `last` steps early."""
    if schedule == "constant":
        return lr
    if step < warm:
        return lr * step / warm
    done = (step - warm) / (total - last - warm)
    return lr * {"constant_with_warmup": 1, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


def _warm(warmup: float, total: int) -> int:
    return math.ceil(warmup * total) if warmup < 1 else int(warmup)


def constant_warms(step, schedule, warmup, total, lr):
    named = "constant_with_warmup" if schedule == "constant" else schedule
    return rate_of_step(step, named, warmup, total, lr)


def nothing_warms(step, schedule, warmup, total, lr):
    return rate_of_step(step, schedule, 0, total, lr)


def share_rounded_down(step, schedule, warmup, total, lr):
    return _rate(step, schedule, int(warmup * total) if warmup < 1 else int(warmup), total, lr)


def share_of_one_step(step, schedule, warmup, total, lr):
    return _rate(step, schedule, warmup, total, lr)


def one_is_a_share(step, schedule, warmup, total, lr):
    return _rate(step, schedule, math.ceil(warmup * total) if warmup <= 1 else int(warmup), total, lr)


def share_of_the_others(step, schedule, warmup, total, lr):
    return _rate(step, schedule, _warm(warmup, total - 1) if warmup < 1 else int(warmup), total, lr)


def begins_above_zero(step, schedule, warmup, total, lr):
    warm = _warm(warmup, total)
    return lr * (step + 1) / warm if schedule != "constant" and step < warm else _rate(step, schedule, warm, total, lr)


def falls_from_the_start(step, schedule, warmup, total, lr):
    warm = _warm(warmup, total)
    return _rate(step, schedule, warm if step < warm else 0, total, lr)


def zero_at_the_last_step(step, schedule, warmup, total, lr):
    return _rate(step, schedule, _warm(warmup, total), total, lr, last=1)


def quarter_wave(step, schedule, warmup, total, lr):
    warm = _warm(warmup, total)
    if schedule != "cosine" or step < warm:
        return _rate(step, schedule, warm, total, lr)
    return lr * math.cos(math.pi / 2 * (step - warm) / (total - warm))


def cosine_in_a_line(step, schedule, warmup, total, lr):
    return rate_of_step(step, "linear" if schedule == "cosine" else schedule, warmup, total, lr)


def the_factor_alone(step, schedule, warmup, total, lr):
    return rate_of_step(step, schedule, warmup, total, 1.0)


def by_transformers(step, schedule, warmup, total, lr):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    rates = get_scheduler(schedule, optimizer, _warm(warmup, total), total)
    return lr * rates.lr_lambdas[0](step)


EXERCISE = Exercise(
    answer=rate_of_step,
    kind="predict it",
    difficulty=1,
    minutes=8,
    cases=cases,
    mistakes={
        constant_warms: "{yours:g} instead of {expected:g}: the schedule `constant` has no warm-up, whatever is asked "
        "for. That is what happened to the Guanaco scripts.",
        nothing_warms: "{yours:g} instead of {expected:g}: the warm-up is left out everywhere. Only `constant` has "
        "none.",
        share_rounded_down: "{yours:g} instead of {expected:g}: a share of the steps is rounded up. 3 % of 1,875 steps "
        "are 57.",
        share_of_one_step: "{yours:g} instead of {expected:g}: a warm-up below 1 is a share of all steps, not a part "
        "of one step.",
        one_is_a_share: "{yours:g} instead of {expected:g}: a warm-up of 1 is one step. Only less than 1 is a share.",
        share_of_the_others: "{yours:g} instead of {expected:g}: the share was taken of `total` - 1. Of 101 steps, 3 % "
        "are four, rounded up.",
        begins_above_zero: "{yours:g} instead of {expected:g}: the first step has the rate 0, and changes nothing. So "
        "the fourth of ten has three tenths of the full rate.",
        falls_from_the_start: "{yours:g} instead of {expected:g}: the fall begins where the warm-up ends, at the full "
        "rate, not at the first step.",
        zero_at_the_last_step: "{yours:g} instead of {expected:g}: the last step is number `total` - 1, and still has "
        "a rate. The 0 would come one step later.",
        quarter_wave: "{yours:g} instead of {expected:g}: half a wave goes from 1 to -1. Moved up by 1 and halved, it "
        "goes from 1 to 0.",
        cosine_in_a_line: "{yours:g} instead of {expected:g}: that is the straight line; the cosine is above it in the "
        "first half.",
        the_factor_alone: "{yours:g} instead of {expected:g}: that is the part of the full rate. Multiply it with "
        "`lr`.",
    },
    hints=(
        "Sort the cases: the schedule without a warm-up; a step inside of the warm-up; a step behind it. For the last, "
        "compute first which part of the way behind the warm-up is done, from 0 to 1.",
        "With d of that way done, the line is at 1 - d of the full rate, and half a wave at (1 + cos(π d)) / 2. A "
        "warm-up below 1 becomes steps by `math.ceil`.",
    ),
    alternatives=(by_transformers,),
)
