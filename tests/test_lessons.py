"""What a lesson defines can be taken out of it, and nothing else of it runs."""

import nbformat
import pytest
from nbformat import v4

from course_utils import lessons
from course_utils.core import files


@pytest.fixture
def lesson(monkeypatch, tmp_path):
    """A notebook of four cells in a clone of its own; the second and third would fail if they ran whole."""
    sources = [
        "raise SystemExit('the first cell finds the package')",
        "import math\n\nLEVELS = 2\ncount = 1 / 0",
        "def double(x: float) -> float:\n    return LEVELS * x\n\n\nprint(undefined)",
        "class Layer:\n    width = math.floor(2.5)",
    ]
    cells = [v4.new_markdown_cell("# A title"), *map(v4.new_code_cell, sources)]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "notebooks" / "05_made.ipynb")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    return "05_made"


def test_definitions_are_taken_out_and_nothing_else_runs(lesson):
    made = lessons.definitions(lesson)
    assert set(vars(made)) == {"math", "LEVELS", "double", "Layer"}
    assert made.double(1.5) == 3
    assert made.Layer.width == 2


def test_each_call_gives_definitions_of_its_own(lesson):
    assert lessons.definitions(lesson).double is not lessons.definitions(lesson).double


def test_a_notebook_that_is_not_there_names_those_that_are(lesson):
    with pytest.raises(ValueError, match="There is no notebook '01_lora'; choose from 05_made"):
        lessons.definitions("01_lora")


def test_a_notebook_that_takes_definitions_from_another_can_be_taken_from(lesson):
    sources = [
        "the first cell",
        "from course_utils import lessons\n\nmade = lessons.definitions('05_made')\nlost = made.double(1 / 0)",
        "def four_times(x: float) -> float:\n    return made.double(made.double(x))",
    ]
    cells = list(map(v4.new_code_cell, sources))
    (files.ROOT / "notebooks" / "deeper").mkdir()
    nbformat.write(v4.new_notebook(cells=cells), files.ROOT / "notebooks" / "deeper" / "05_deeper.ipynb")
    assert lessons.definitions("05_deeper").four_times(1.5) == 6
