"""What can be said of the notebooks without running them: honest outputs, readable cells, complete metadata."""

import ast
import re
import statistics

import nbformat
import pytest

from course_utils import lessons
from course_utils.core.files import notebooks

NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in notebooks()}
PROMISE = re.compile(r"(equal|within|below|unchanged|bit for bit|fell by).*: (True|False)$")


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in NOTEBOOKS[name].cells if cell.cell_type == "code"]


def lines(cell: nbformat.NotebookNode) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


DEEPER = ["01_why_lora", "02_placement", "03_memory", "04_judging"]


def test_all_four_lessons_are_there_and_their_deeper_halves():
    assert list(NOTEBOOKS) == ["01_lora", "02_peft", "03_qlora", "04_guanaco_sft", *DEEPER]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_lesson_has_at_most_120_cells_and_a_deeper_half_100(name):
    assert len(NOTEBOOKS[name].cells) <= (100 if name in DEEPER else 120)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_local_path_and_no_warning_in_stored_outputs(name):
    for cell in code_cells(name):
        text = str(cell.outputs)
        assert not re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\\\", text), cell.source
        assert "Warning" not in text, cell.source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_stray_metadata(name):
    assert set(NOTEBOOKS[name].metadata) == {"kernelspec", "language_info"}
    for cell in NOTEBOOKS[name].cells:
        assert set(cell.metadata) <= {"tags", "reason"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_picture_has_alt_text(name):
    outputs = [output for cell in code_cells(name) for output in cell.outputs if "image/png" in output.get("data", {})]
    assert outputs
    assert all(output.metadata["image/png"]["alt"] for output in outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short(name):
    sizes = [lines(cell) for cell in code_cells(name)]
    assert statistics.median(sizes) <= 6
    assert max(sizes) <= 30


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_prose_keeps_pace_with_code(name):
    words = sum(len(cell.source.split()) for cell in NOTEBOOKS[name].cells if cell.cell_type == "markdown")
    assert 35 <= words / len(code_cells(name)) <= 80


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_most_cells_show_a_result(name):
    """Each section ends in something compared; the rest are definitions and loading."""
    with_output = sum(bool(cell.outputs) for cell in code_cells(name))
    assert with_output >= 0.6 * len(code_cells(name))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_results_contain_no_failed_promise(name):
    """Every comparison that the prose announces as an equality was printed as True; each notebook has some."""
    printed = [
        line for cell in code_cells(name) for output in cell.outputs for line in output.get("text", "").splitlines()
    ]
    promises = [line for line in printed if PROMISE.search(line)]
    assert promises
    assert [line for line in promises if not line.endswith("True")] == []


SET = re.compile(r"\{'[^':{}]*'(?:, '[^':{}]*')+\}")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_output_prints_a_set(name):
    """A set of strings has another order in each process, so two runs of a cell would differ."""
    printed = [output.get("text", "") for cell in code_cells(name) for output in cell.outputs]
    assert [found for text in printed for found in SET.findall(text)] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_title_cell_promises_and_measures(name):
    first = NOTEBOOKS[name].cells[0].source
    assert first.startswith("# ")
    assert "you will" in first
    assert re.search(
        r"^\*Measured on two CPU cores .*: [1-9]\d* min \d\d s, peak memory (?:[1-9]\.\d|0\.[1-9]) GB\.\*$", first, re.M
    ) or re.search(r"^\*Measured .*: 0 min [1-9]\d s, peak memory (?:[1-9]\.\d|0\.[1-9]) GB\.\*$", first, re.M)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_dead_code(name):
    for cell in code_cells(name):
        tree = ast.parse(cell.source)
        assert not any(isinstance(node, ast.If) and isinstance(node.test, ast.Constant) for node in ast.walk(tree))
        assert not re.search(r"^\s*#.*[=(].*[)]\s*$", cell.source, re.M), "commented-out code"
        assert not cell.source.rstrip().endswith(";")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_definitions_can_be_taken_out_for_testing(name):
    """All of them, and nothing that only a run of the cells before makes."""
    definitions = vars(lessons.definitions(name))
    written = re.findall(r"^(?:def|class) (\w+)", "\n".join(cell.source for cell in code_cells(name)), re.M)
    assert written
    assert [word for word in written if not callable(definitions.get(word))] == []


def test_conversations_are_learned_once_whatever_the_profile():
    """Steps of a profile would make it twelve times with a large one, and the model worse than before."""
    (recipe,) = [cell.source for cell in code_cells("04_guanaco_sft") if "Recipe(" in cell.source]
    assert "steps=math.ceil(len(examples) / profile.batch_size)," in recipe


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name not in DEEPER])
def test_a_lesson_leads_to_its_exercises_its_second_half_and_the_next_lesson(name):
    last = NOTEBOOKS[name].cells[-1].source
    own = [path for path in notebooks() if path.stem[:2] == name[:2] and path.stem != name]
    after = [path for path in NOTEBOOKS if path[:2] == f"{int(name[:2]) + 1:02}" and path not in DEEPER]
    wanted = [
        f"exercises/{name[:2]}.ipynb",
        *(f"deeper/{path.stem}.ipynb" for path in own),
        *(f"{n}.ipynb" for n in after),
    ]
    assert [target for target in wanted if f"]({target})" not in last] == []
