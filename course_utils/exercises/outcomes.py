"""What does a function do with an input? Its result in parts, the gradients, what it changes, or its error."""

import copy
import inspect
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any

import numpy as np
import pandas as pd
import torch

from course_utils.exercises.exercise import Answer, Exercise

RESULT = "Your result"  # the name of a result that has no parts


class NotAttempted(Exception):
    """The function still returns the stub's `...`; with a text: in these parts alone."""


@dataclass
class Outcome:
    """What one call did.

    The parts of its result by name, what kind of value that is, the gradients of inputs that want one, and the inputs
    that were changed. Or else its error: what was raised, and the place in the code of the function.
    """

    parts: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    gradients: dict[str, torch.Tensor | None] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    error: Exception | None = None
    place: str = ""


def observe(exercise: Exercise, answer: Answer, arguments: tuple[Any, ...]) -> Outcome:
    """Call an answer, on copies of the arguments and with a fixed seed."""
    call = partial(exercise.outcome, _attempted(answer)) if exercise.outcome else _attempted(answer)
    names = list(inspect.signature(exercise.outcome or exercise.answer).parameters)[bool(exercise.outcome) :]
    given = dict(zip(names, copy.deepcopy(arguments), strict=True))
    before = dict(parts(copy.deepcopy(given)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            result = call(*given.values())
            found = dict(parts(result))
            gradients = _gradients(found, given)
        except Exception as error:
            return Outcome(error=error, place=_place(error, answer))
    after = dict(parts(given))
    changed = [name.partition(",")[0] for name in before | after if not _same(after.get(name), before.get(name))]
    return Outcome(found, kind(result), gradients, tuple(dict.fromkeys(changed)))


def parts(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors, numbers and texts in a value, each by its key; 0-d tensors and numpy's numbers are numbers."""
    if isinstance(value, (list, tuple)):
        value = {f"item {place}": each for place, each in enumerate(value)}
    if isinstance(value, dict):
        for key, each in value.items():
            yield from parts(each, f"{name}, {key}" if name else str(key))
        return
    number = isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and not value.ndim)
    yield name or RESULT, value.item() if number else value


def kind(value: Any) -> str:
    """What a value is, in a few words."""
    if isinstance(value, dict):
        return f"a dict with the keys {', '.join(map(str, value))}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.ndim else "a number"
    if value is None:
        return "None"
    name = type(value).__name__
    return f"the {name} {value!r}" if isinstance(value, (int, float, str)) else f"a {name}"


def _attempted(answer: Answer) -> Answer:
    """The answer, which says so if it was not attempted."""

    @wraps(answer)
    def call(*arguments: Any) -> Any:
        result = answer(*arguments)
        if unwritten := [name for name, part in parts(result) if part is ...]:
            raise NotAttempted("" if result is ... else ", ".join(unwritten))
        return result

    return call


def _gradients(found: dict[str, Any], given: dict[str, Any]) -> dict[str, torch.Tensor | None]:
    """The gradients of the sum of squares of the result, None where none arrives."""
    wanted = {name: part for name, part in parts(given) if isinstance(part, torch.Tensor) and part.requires_grad}
    results = [part for part in found.values() if isinstance(part, torch.Tensor) and part.requires_grad]
    gradients = [None] * len(wanted)
    if wanted and results:
        total = sum(result.square().sum() for result in results)
        gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    return {f"gradient of {name}": gradient for name, gradient in zip(wanted, gradients, strict=True)}


def _same(part: Any, before: Any) -> bool:
    """Whether an input is what it was; of models and functions nothing is said."""
    if isinstance(part, torch.Tensor):
        return isinstance(before, torch.Tensor) and torch.equal(part, before)
    if isinstance(part, pd.DataFrame):
        return part.equals(before)
    return not isinstance(part, (int, float, str, type(None))) or part == before


def _place(error: Exception, answer: Callable[..., Any]) -> str:
    """The line in the code of the answer, as the reader knows it; nothing of the checker's own."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", "")
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1].lineno}: {lines[-1].line}" if lines else ""
