"""What does the checker say of an answer?"""

import math
from typing import Any

import torch

from course_utils.exercises import battery
from course_utils.exercises.exercise import Answer, Exercise, load, names
from course_utils.exercises.outcomes import NotAttempted, Outcome, observe


def check(answer: Answer) -> None:
    """Print what is to be said of an answer, the function itself: nothing it does stops a notebook."""
    name = getattr(answer, "__name__", None)
    if name in names():
        print(say(load(name), answer))
    elif name is None:
        print("Give the function itself to the checker, without brackets behind it: exercises.check(the_function).")
    else:
        print(f"There is no exercise {name!r}; the function has to keep the name of its stub: {', '.join(names())}.")


def say(exercise: Exercise, answer: Answer) -> str:
    """What is to be said; the first that fits.

    Not attempted; correct; exactly one of the recorded mistakes, with what was measured; an error; what differs.

    Raises:
        Exception: the solution itself fails here.
    """
    cases = exercise.cases()
    yours, expected = (_observed(exercise, each, cases) for each in (answer, exercise.answer))
    for broken in (found.error for found in expected.values() if found.error):
        raise broken
    unwritten = [case for case, found in yours.items() if isinstance(found.error, NotAttempted)]
    if len(unwritten) == len(cases):
        return "Not attempted yet."
    unwritten += [name for found in yours.values() for name, part in found.parts.items() if part is ...]
    if unwritten:
        return f"Not finished yet; there is still a `...` in: {', '.join(dict.fromkeys(unwritten))}."
    wrong = [case for case in cases if not battery.equal(yours[case], expected[case], exercise.rtol)]
    if not wrong:
        return "Correct."
    made = [
        message
        for mistake, message in exercise.mistakes.items()
        if all(
            battery.equal(yours[c], found, exercise.rtol) for c, found in _observed(exercise, mistake, cases).items()
        )
    ]
    if len(made) == 1:
        return made[0].format(**measured(exercise, yours, expected, wrong))
    where = f", for {len(wrong)} of {len(cases)} inputs. The first of them is: {wrong[0]}" if len(cases) > 1 else ""
    return "\n".join([f"Not right yet{where}.", *_difference(exercise, yours[wrong[0]], expected[wrong[0]])])


def _observed(exercise: Exercise, answer: Answer, cases: dict[str, tuple[Any, ...]]) -> dict[str, Outcome]:
    """What an answer does in each case."""
    return {case: observe(exercise, answer, arguments) for case, arguments in cases.items()}


def measured(
    exercise: Exercise, yours: dict[str, Outcome], expected: dict[str, Outcome], wrong: list[str]
) -> dict[str, Any]:
    """What a message may name in braces, taken from the first part that differs in the first wrong case.

    `part`: its name; `yours`, `expected`: its values; `ratio`: yours over expected, for a tensor by least squares;
    `difference`: yours minus expected; `off`: the size of the difference in percent of the expected; `error`: its text;
    `wrong` of `cases`: how many cases are wrong; `parts` of `all_parts`: how many parts are.
    """
    mine, right = yours[wrong[0]], expected[wrong[0]]
    names = battery.different(mine, right, exercise.rtol)
    a, b = (found.parts.get(names[0]) if names else None for found in (mine, right))
    numbers = {"part": names[0] if names else "", "yours": a, "expected": b, "error": mine.error}
    numbers |= {"wrong": len(wrong), "cases": len(yours), "parts": len(names), "all_parts": len(right.parts)}
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape:
        return numbers | {"ratio": battery.times(a, b), "off": 100 * ((a - b).norm() / b.norm()).item()}
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        ratio = a / b if b else math.inf
        return numbers | {"ratio": ratio, "difference": a - b}
    return numbers


def _difference(exercise: Exercise, yours: Outcome, expected: Outcome) -> list[str]:
    """What is wrong in one case, and the values."""
    if yours.error:
        return [each for each in (yours.place, f"{type(yours.error).__name__}: {yours.error}") if each]
    said = [f"It changes its input {name} in place: make a new one instead." for name in yours.changed]
    if differing := battery.different(yours, expected, exercise.rtol):
        name = differing[0]
        a, b = (found.parts.get(name, battery.MISSING) for found in (yours, expected))
        said.append(battery.describe(name, a, b, exercise.rtol))
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            said += [f"yours    {battery.show(a)}", f"expected {battery.show(b)}"]
        if len(differing) > 1:
            said.append(f"Also different: {', '.join(differing[1:])}.")
    return said
