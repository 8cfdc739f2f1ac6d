"""What does the checker say of an answer?"""

import difflib
import math
from typing import Any

import torch

from course_utils.exercises import battery
from course_utils.exercises.exercise import Answer, Exercise, load, names
from course_utils.exercises.outcomes import NotAttempted, Outcome, observe

ONE_CALL = ("find it", "make it fit")  # of these nothing may be told but what is wrong


def check(answer: Answer) -> None:
    """Print what is to be said of an answer, the function itself: nothing it does stops a notebook."""
    name = getattr(answer, "__name__", None)
    if name in names():
        print(say(load(name), answer))
    elif name is None:
        print("Give the function itself to the checker, without brackets behind it: exercises.check(the_function).")
    else:
        near = difflib.get_close_matches(name, names(), cutoff=0.4) or names()
        print(f"There is no exercise {name!r}; the function has to keep the name of its stub: {', '.join(near)}.")


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
    if unwritten := {c: str(found.error) for c, found in yours.items() if isinstance(found.error, NotAttempted)}:
        if len(unwritten) == len(cases) and not any(unwritten.values()):
            return "Not attempted yet."
        where = dict.fromkeys(parts or case for case, parts in unwritten.items())
        return f"Not finished yet. There is still a `...` in: {'; '.join(where)}"
    wrong = [case for case in cases if not battery.equal(yours[case], expected[case], exercise.rtol)]
    if not wrong:
        return "Correct."
    made = [message for mistake, message in exercise.mistakes.items() if _same(exercise, yours, mistake, cases)]
    if len(made) == 1:
        return made[0].format(**measured(exercise, yours, expected, wrong))
    if exercise.kind in ONE_CALL and len(cases) == 1 and not yours[wrong[0]].error:
        return _of_one_call(exercise, yours, expected, cases)
    return "\n".join([_where(wrong, len(cases)), *_difference(exercise, yours[wrong[0]], expected[wrong[0]])])


def _of_one_call(
    exercise: Exercise,
    yours: dict[str, Outcome],
    expected: dict[str, Outcome],
    cases: dict[str, tuple[Any, ...]],
) -> str:
    """What is said of a prediction or a set-up with several faults: never what would have been right."""
    ((case, mine),), (right,) = yours.items(), expected.values()
    found = battery.different(mine, right, exercise.rtol)
    if exercise.kind == "make it fit":
        return "\n".join(f"Not right yet. {name}: {said}." for name, (said, _) in found.items())
    for mistake, message in exercise.mistakes.items():
        made = battery.different(observe(exercise, mistake, cases[case]), right, exercise.rtol)
        if all(name in found and found[name][0] == said for name, (said, _) in made.items()):
            return message.format(**measured(exercise, yours, expected, [case])) + "\nThere is another cause as well."
    return f"{len(found)} of {len(right.parts)} wrong: {', '.join(found)}."


def _where(wrong: list[str], cases: int) -> str:
    """For which inputs an answer is wrong; what follows is said of the first."""
    if cases == 1:
        return "Not right yet."
    if len(wrong) == cases:
        return f"Not right yet for any of the {cases} inputs. For the first, {wrong[0]}:"
    first = " For the first of them:" if len(wrong) > 1 else ""
    return f"Not right yet for {len(wrong)} of {cases} inputs: {'; '.join(wrong)}.{first}"


def _same(exercise: Exercise, yours: dict[str, Outcome], other: Answer, cases: dict[str, tuple[Any, ...]]) -> bool:
    """Whether another answer does the same in all cases."""
    return all(battery.equal(yours[c], observe(exercise, other, cases[c]), exercise.rtol) for c in cases)


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
    found = battery.different(mine, right, exercise.rtol)
    name, (a, b) = next(iter(found.items()), ("", (None, None)))
    numbers = {"part": name, "yours": a, "expected": b, "error": mine.error}
    numbers |= {"wrong": len(wrong), "cases": len(yours), "parts": len(found), "all_parts": len(right.parts)}
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape:
        return numbers | {"ratio": battery.times(a, b), "off": 100 * ((a - b).norm() / b.norm()).item()}
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        ratio = a / b if b else math.inf
        return numbers | {"ratio": ratio, "difference": a - b}
    return numbers


def _difference(exercise: Exercise, yours: Outcome, expected: Outcome) -> list[str]:
    """What is wrong in one case, and the values."""
    if yours.error:
        told = [yours.place, f"{type(yours.error).__name__}: {yours.error}".removesuffix(": ")]
        stopped = exercise.kind == "test it" and isinstance(yours.error, AssertionError)
        told += ["An assert stops your test. It says no by returning False."] if stopped else []
        return [each for each in told if each]
    said = [f"It changes its input {name} in place: make a new one instead." for name in yours.changed]
    missing, more = expected.parts.keys() - yours.parts.keys(), yours.parts.keys() - expected.parts.keys()
    if yours.kind != expected.kind and (missing or more):
        lost = ": is there no `return`? Expected" if yours.kind == "None" else "; expected"
        return [*said, f"Your result is {yours.kind}{lost} is {expected.kind}."]
    if missing or more:
        return [
            *said,
            f"Missing in your result: {', '.join(sorted(missing))}; not asked for: {', '.join(sorted(more))}.",
        ]
    found = battery.different(yours, expected, exercise.rtol)
    said += [battery.describe(name, *found[name], exercise.rtol) for name in list(found)[:1]]
    return [*said, f"Also different: {', '.join(list(found)[1:])}."] if len(found) > 1 else said
