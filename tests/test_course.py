"""The runner: executes, measures, tidies, links, and never leaves half a file."""

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import v4

from course_utils import course

TITLE = "# A title\n\n*Measured on nothing yet.*"


@pytest.fixture
def made(tmp_path):
    """A small notebook on disk."""

    def make(*sources: str):
        cells = [v4.new_markdown_cell(TITLE), *(v4.new_code_cell(source) for source in sources)]
        path = tmp_path / "made.ipynb"
        nbformat.write(v4.new_notebook(cells=cells, metadata={"stray": 1}), path)
        return path

    return make


def test_executes_and_measures(made):
    notebook, run = course.execute(made("x = 20\nprint(x)", "print(x + 1)"))
    assert [cell.outputs[0].text for cell in notebook.cells[1:]] == ["20\n", "21\n"]
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert run.title == "A title"
    assert run.seconds > 0
    assert run.peak > 20e6
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not notebook.cells[1].metadata


def test_memory_of_the_kernel_is_seen(made):
    _, run = course.execute(made("import time; x = bytearray(400_000_000); time.sleep(0.5)"))
    assert run.peak > 400e6


def test_progress_bars_become_their_last_line(made):
    source = "import sys\nfor n in range(3):\n    print(f'\\rstep {n}', end='', file=sys.stderr)"
    notebook, _ = course.execute(made(source))
    assert notebook.cells[1].outputs[0].text == "step 2"


def test_a_failing_cell_is_shown(made):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        course.execute(made("1 / 0"))


def test_cost_is_written_into_the_title_cell(made, tmp_path):
    notebook = nbformat.read(made("1"), as_version=4)
    course.state_cost(notebook, course.Run(tmp_path, "A title", 125, int(2.34e9)))
    expected = "*Measured on two CPU cores with the model cached: 2 min 05 s, peak memory 2.3 GB.*"
    assert notebook.cells[0].source == f"# A title\n\n{expected}"
    notebook.cells[0].source = "# No line"
    with pytest.raises(ValueError, match="needs a line"):
        course.state_cost(notebook, course.Run(tmp_path, "A title", 1, 1))


def test_pages_link_to_each_other(made, tmp_path):
    notebook = nbformat.read(made("1"), as_version=4)
    page = course.page(notebook, ["01_a", "02_b", "03_c"], "02_b")
    assert 'href="index.html"' in page
    assert 'href="01_a.html"' in page
    assert 'href="03_c.html"' in page
    assert "<title>02_b</title>" in page
    index = course.index_page([course.Run(tmp_path / "01_a.ipynb", "One & all", 61, int(1e9))])
    assert '<a href="01_a.html">One &amp; all</a>' in index
    assert "1 min 01 s" in index


@pytest.mark.parametrize("name", course.README_PICTURES)
def test_readme_pictures_are_those_of_the_notebooks(name):
    pictures = {}
    for path in course.NOTEBOOKS:
        pictures |= course.readme_pictures(nbformat.read(path, as_version=4))
    assert (course.ROOT / "notebooks" / name).read_bytes() == pictures[name]
    assert f"(notebooks/{name})" in (course.ROOT / "README.md").read_text(encoding="utf-8")
