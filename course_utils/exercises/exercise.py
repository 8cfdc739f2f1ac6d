"""What is an exercise? One function to write, and what is known of its answers, in one file a piece."""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
Answer = Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """One function to write; its task is the docstring of the file, whose first sentence is its question.

    Args:
        answer: the solution. What is shown as such is its source, and the stub is the head of it.
        kind: what is asked for ("write it", "predict it").
        difficulty: from 1 to 3.
        minutes: what one needs who has worked through the lesson.
        cases: makes the inputs, the same at each call: arguments, by a name that says what is special about them.
        mistakes: wrong functions, each with what is said of it; `checker.measured` has what may stand in its braces.
        hints: from a nudge to nearly everything; none holds a line of the solution.
        alternatives: functions that are right as well.
        given: functions and classes that the notebook shows before the stub.
        outcome: what of an answer is compared, given the answer and the arguments; what it returns, by default.
        rtol: by how much, beside the largest number of a result, it may differ.
    """

    answer: Answer
    kind: str
    difficulty: int
    minutes: int
    cases: Callable[[], dict[str, tuple[Any, ...]]]
    mistakes: dict[Answer, str]
    hints: tuple[str, ...]
    alternatives: tuple[Answer, ...]
    given: tuple[Callable[..., Any], ...] = ()
    outcome: Callable[..., Any] | None = None
    rtol: float = 1e-5

    @property
    def name(self) -> str:
        """That of the function, and of the file."""
        return self.answer.__name__

    @property
    def task(self) -> str:
        """The question, then what is to be done, in Markdown."""
        return inspect.getdoc(inspect.getmodule(self.answer)) or ""

    @property
    def solution(self) -> str:
        """The source of the solution."""
        return inspect.getsource(self.answer).rstrip()

    @property
    def stub(self) -> str:
        """The solution's head and docstring; what is to be written returns `...` until then."""
        docstring = ast.parse(self.solution).body[0].body[0]
        return "\n".join([*self.solution.splitlines()[: docstring.end_lineno], "    return ..."])


def lessons() -> list[ModuleType]:
    """The folders of exercises, in the order of the lessons."""
    folders = [import_module(f"{__package__}.{path.parent.name}") for path in HERE.glob("*/__init__.py")]
    return sorted(folders, key=lambda folder: folder.NUMBER)


def names() -> list[str]:
    """The names of all exercises, lesson by lesson."""
    return [name for lesson in lessons() for name in (*lesson.LESSON, *lesson.DEEPER)]


def load(name: str) -> Exercise:
    """The exercise of that name.

    Raises:
        ValueError: there is none; names those there are.
    """
    for lesson in lessons():
        if name in (*lesson.LESSON, *lesson.DEEPER):
            return import_module(f"{lesson.__name__}.{name}").EXERCISE
    raise ValueError(f"There is no exercise {name!r}. A stub keeps its name; they are {', '.join(names())}.")
