"""Exercises: right answers pass, each recorded mistake gets its own message, and what is shown is what was tested."""

import inspect
import re
from functools import cache
from itertools import combinations
from pathlib import Path

import nbformat
import pytest

from course_utils.core import files
from course_utils.course import workbooks
from course_utils.exercises import __main__ as copying
from course_utils.exercises import battery, exercise
from course_utils.exercises.checker import say
from course_utils.exercises.exercise import Exercise
from course_utils.exercises.outcomes import Outcome, observe

NAMES = exercise.names()
WORKBOOKS = dict(workbooks.made())


@cache
def load(name: str) -> Exercise:
    return exercise.load(name)


@cache
def outcomes(name: str) -> dict[str, list[Outcome]]:
    """What the solution and each recorded mistake do in all cases."""
    one = load(name)
    answers = [one.answer, *one.mistakes]
    return {a.__name__: [observe(one, a, arguments) for arguments in one.cases().values()] for a in answers}


def test_every_lesson_has_six_exercises_and_its_second_half_two():
    for lesson in exercise.lessons():
        assert len(lesson.LESSON) >= 6
        assert len(lesson.DEEPER) >= 2
        written = {path.stem for path in Path(lesson.__file__).parent.glob("*.py")} - {"__init__"}
        assert written == {*lesson.LESSON, *lesson.DEEPER}
    assert len(set(NAMES)) == len(NAMES)


def test_several_kinds_are_asked_for():
    assert len({load(name).kind for name in NAMES}) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_is_whole(name):
    one = load(name)
    assert one.name == name
    assert one.task.split("\n\n")[0].endswith("?")
    assert 1 <= one.difficulty <= 3
    assert 1 <= one.minutes <= 15
    assert len(one.mistakes) >= 3
    assert len(one.hints) >= 2
    assert one.alternatives


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_and_its_alternatives_are_right(name):
    one = load(name)
    assert {answer.__name__: say(one, answer) for answer in one.alternatives if say(one, answer) != "Correct."} == {}
    assert say(one, one.answer) == "Correct."


@pytest.mark.parametrize("name", NAMES)
def test_every_mistake_gets_its_own_message_with_what_was_measured(name):
    one = load(name)
    said = {mistake: say(one, mistake) for mistake in one.mistakes}
    for mistake, message in one.mistakes.items():
        template = ".*".join(re.escape(part) for part in re.split(r"\{[^}]*\}", message))
        assert re.fullmatch(template, said[mistake]), f"{mistake.__name__}: {said[mistake]}"
        assert re.search(r"\d", said[mistake])
    assert len(set(said.values())) == len(said)


@pytest.mark.parametrize("name", NAMES)
def test_the_inputs_tell_all_mistakes_apart(name):
    rtol = load(name).rtol
    for (first, a), (second, b) in combinations(outcomes(name).items(), 2):
        alike = all(battery.equal(x, y, rtol) for x, y in zip(a, b, strict=True))
        assert not alike, f"no input tells {first} from {second}"


@pytest.mark.parametrize("name", NAMES)
def test_the_stub_is_the_head_of_the_solution_and_counts_as_not_attempted(name):
    one = load(name)
    scope = dict(vars(inspect.getmodule(one.answer)))
    exec(one.stub, scope)
    assert say(one, scope[name]) == "Not attempted yet."
    assert one.solution.startswith(one.stub.removesuffix("    return ..."))


@pytest.mark.parametrize("name", NAMES)
def test_neither_task_nor_hints_hold_a_line_of_the_solution(name):
    one = load(name)
    body = one.solution.removeprefix(one.stub.removesuffix("    return ..."))
    lines = [line.strip() for line in body.splitlines() if len(line.strip()) > 1]
    assert lines
    assert [line for line in lines for text in (one.task, *one.hints) if line in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_solution_is_no_copy_of_what_a_lesson_prints(name):
    body = load(name).solution.partition('"""\n')[2]
    for path in files.notebooks():
        sources = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert not [source for source in sources if inspect.cleandoc(body) in source or f"def {name}(" in source]


@pytest.mark.parametrize("path", WORKBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_notebooks_are_what_the_sources_make_of_them(path):
    """If not: `make docs` writes them, and says which have to be run again."""
    assert workbooks.is_current(path, WORKBOOKS[path])


def test_there_are_no_other_notebooks_of_exercises():
    assert set(files.workbooks()) == set(WORKBOOKS)


@pytest.mark.parametrize(("folder", "said"), [("exercises", "Not attempted yet.\n"), ("solutions", "Correct.\n")])
def test_every_exercise_is_open_and_every_solution_is_right_in_the_stored_notebooks(folder, said):
    for path in files.workbooks(folder):
        cells = nbformat.read(path, as_version=4).cells
        answers = [cell for cell in cells if "exercises.check(" in cell.source]
        assert answers
        assert {output.text for cell in answers for output in cell.outputs if output.name == "stdout"} == {said}


@pytest.mark.parametrize("path", files.workbooks(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_stored_notebooks_are_clean_and_their_cells_short(path):
    notebook = nbformat.read(path, as_version=4)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert sum(bool(line.strip()) for line in cell.source.splitlines()) <= 30
            assert not re.search(r"Warning|/(home|root|tmp|work|Users)/", str(cell.outputs))
    assert re.search(r"^\*Measured on two CPU cores .*: \d min \d\d s, peak .* GB\.\*$", notebook.cells[0].source, re.M)


def test_a_notebook_keeps_its_outputs_as_long_as_its_cells_are_current(tmp_path, monkeypatch):
    path = tmp_path / "01.ipynb"
    monkeypatch.setattr(workbooks, "made", lambda: iter([(path, WORKBOOKS[files.workbooks("solutions")[0]])]))
    assert workbooks.write() == [path]
    run = nbformat.read(path, as_version=4)
    run.cells[0].source = run.cells[0].source.replace(workbooks.UNMEASURED, "*Measured on two cores: 0 min 30 s.*")
    run.cells[-1].outputs = [nbformat.v4.new_output("stream", text="Correct.\n")]
    nbformat.write(run, path)
    assert workbooks.write() == []
    run.cells[-1].source += "\n"
    nbformat.write(run, path)
    assert workbooks.write() == [path]
    assert not nbformat.read(path, as_version=4).cells[-1].outputs


def test_exercises_are_copied_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks" / "exercises").mkdir(parents=True)
    (tmp_path / "notebooks" / "exercises" / "01.ipynb").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    copying.main([])
    mine = tmp_path / "notebooks" / "mine" / "01.ipynb"
    mine.write_text("my answers", encoding="utf-8")
    copying.main([])
    assert mine.read_text(encoding="utf-8") == "my answers"
    assert capsys.readouterr().out.count("stays as it is") == 1


def test_git_and_the_notebook_checks_leave_answers_alone():
    assert "notebooks/mine/" in (files.ROOT / ".gitignore").read_text(encoding="utf-8")
    assert "--ignore=notebooks/mine" in (files.ROOT / "pyproject.toml").read_text(encoding="utf-8")
