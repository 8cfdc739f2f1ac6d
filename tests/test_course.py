"""The runner: executes, measures, tidies, links, and never leaves half a file."""

import io
import json
import os
import re
import runpy
import subprocess
import sys

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellExecutionError
from nbformat import v4
from traitlets.utils.importstring import import_item

from course_utils.core import files
from course_utils.core.files import ROOT
from course_utils.course import __main__ as course
from course_utils.course import sections, site
from course_utils.course.execute import Run, ThisPython, execute, state_cost

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
    notebook, run = execute(made("x = 20\nprint(x)", "print(x + 1)"))
    assert [cell.outputs[0].text for cell in notebook.cells[1:]] == ["20\n", "21\n"]
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2]
    assert run.title == "A title"
    assert run.seconds > 0
    assert run.peak > 20e6
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not notebook.cells[1].metadata


def test_each_section_is_timed_and_the_times_are_kept_beside_the_notebook(tmp_path):
    """A slow section is slow, one of text is left out, and no timestamp stays in a notebook."""
    slow, path = "import time; time.sleep(0.4)", tmp_path / "made.ipynb"
    texts = f"{TITLE}\n\n## First", slow, "1", "## Only text", "text\n\n## Second, after text", "2", "", "## Last", "3"
    cells = [v4.new_code_cell(t) if t in ("1", "2", "3", "", slow) else v4.new_markdown_cell(t) for t in texts]
    nbformat.write(v4.new_notebook(cells=cells), path)
    notebook, run = execute(path)
    assert list(run.sections) == ["First", "Second, after text", "Last"]
    assert 0.4 <= run.sections["First"] < run.seconds
    assert max(run.sections["Second, after text"], run.sections["Last"]) < 0.4
    assert [dict(cell.metadata) for cell in notebook.cells] == [{}] * len(cells)
    record = tmp_path / "instructors" / "seconds.json"
    for name, seconds in ("02", {"A": 2.0}), ("01", run.sections), ("02", {"B": 1.5}):
        sections.keep(name, seconds, record)
    assert list(sections.record(record).items()) == [("01", run.sections), ("02", {"B": 1.5})]
    assert sections.record(tmp_path / "none.json") == {}


def test_the_seconds_of_a_lesson_are_kept_when_it_is_replaced(made, tmp_path, monkeypatch):
    path, kept = made("1"), []
    done = Run(path, "A title", 1, 1, {"A": 0.5})
    monkeypatch.setattr(course, "execute", lambda path: (nbformat.read(path, as_version=4), done))
    monkeypatch.setattr(course.sections, "keep", lambda *what: kept.append(what))
    for in_place, lessons in ((False, [path]), (True, []), (True, [path])):
        monkeypatch.setattr(course, "lessons", lambda lessons=lessons: lessons)
        course.run(path, tmp_path / "build" / "made.ipynb", in_place)
    assert kept == [("made", {"A": 0.5})]


def test_memory_of_the_kernel_is_seen(made):
    _, run = execute(made("import time; x = bytearray(400_000_000); time.sleep(0.5)"))
    assert run.peak > 400e6


@pytest.fixture
def broken_kernel(tmp_path, monkeypatch):
    """A kernel named `python3` that a user has installed, of an interpreter that fails."""
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["false", "{connection_file}"], "display_name": "another Python", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "false"


@pytest.mark.usefixtures("broken_kernel")
def test_the_kernel_is_the_python_that_runs_this(made):
    notebook, _ = execute(made("import sys; print(sys.executable)"))
    assert notebook.cells[1].outputs[0].text.strip() == sys.executable


@pytest.mark.usefixtures("broken_kernel")
def test_make_lab_starts_the_python_that_runs_it():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (manager,) = re.findall(r"jupyterlab .*--ServerApp\.kernel_spec_manager_class=(\S+)", makefile)
    assert import_item(manager)().get_kernel_spec("python3").argv[0] == sys.executable


@pytest.mark.usefixtures("broken_kernel")
def test_the_kernels_of_pytest_are_the_python_that_runs_it(made):
    """nbval has its own way: `--nbval-current-env`, among the options in pyproject.toml."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    path = made("import sys; assert sys.executable == " + repr(sys.executable))
    done = subprocess.run([*command, "-c", os.devnull, path], cwd=path.parent, capture_output=True, text=True)
    assert "1 passed" in done.stdout


def test_kernels_of_other_names_stay_as_they_are(tmp_path, monkeypatch):
    folder = tmp_path / "kernels" / "other"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"argv": ["R"], "display_name": "R", "language": "R"}', encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert ThisPython().get_kernel_spec("other").argv == ["R"]


def test_a_run_leaves_notebooks_and_a_site_of_them_and_prints_on_any_console(made, tmp_path, monkeypatch):
    """The course runs in a folder whose name cp1252 lacks; the console is a Windows file in that encoding."""
    root = tmp_path / "Ωmega"
    root.mkdir()
    path = made("1").rename(root / "made.ipynb")
    monkeypatch.setattr(course, "ROOT", root)
    monkeypatch.setattr(course, "lessons", lambda: [path])
    monkeypatch.setattr(course, "default_model_dir", lambda: None)
    built = []
    monkeypatch.setattr(course.site, "check", lambda: None)
    monkeypatch.setattr(course.site, "build", lambda *given: built.append(given))
    monkeypatch.setattr(sys, "argv", ["course"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    course.main()
    sys.stdout.seek(0)
    assert "?mega" in "".join(sys.stdout.read().splitlines())
    copy = root / "build" / "notebooks" / root.name / "made.ipynb"
    assert [file for file in (root / "build").rglob("*.*") if file.is_file()] == [copy]
    assert built == [(root / "build" / "course", {path: copy})]


def test_progress_bars_become_their_last_line(made):
    source = "import sys\nfor n in range(3):\n    print(f'\\rstep {n}', end='', file=sys.stderr)"
    notebook, _ = execute(made(source))
    assert notebook.cells[1].outputs[0].text == "step 2"


def test_a_failing_cell_is_shown(made):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(made("1 / 0"))


def test_a_notebook_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["course", "nowhere.ipynb"])
    with pytest.raises(SystemExit):
        course.main()
    assert "there is no notebook" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--site", "{made}"], "name notebooks alone, or with --in-place"),
        (["--publish", "https://github.com/o/n", "{made}"], "name notebooks alone"),
        (["--docs", "--site"], "not allowed with argument"),
        (["--all", "{made}"], "name notebooks alone"),
        (["--in-place", "nowhere.ipynb"], "there is no notebook"),
        (["{plain}"], "needs a line '[*]Measured"),
        (["{text}"], "is no notebook"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(made, tmp_path, monkeypatch, capsys, arguments, words):
    plain, text = tmp_path / "plain.ipynb", tmp_path / "text.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# T")]), plain)
    text.write_text("no JSON", encoding="utf-8")
    given = [each.format(made=made("1"), plain=plain, text=text) for each in arguments]
    monkeypatch.setattr(course.workbooks, "write", lambda: pytest.fail("exercises were written"))
    monkeypatch.setattr(sys, "argv", ["course", *given])
    with pytest.raises(SystemExit) as ended:
        course.main()
    assert ended.value.code == 2
    assert re.search(words, capsys.readouterr().err)


def test_notebooks_that_were_written_and_are_not_run_are_named(made, monkeypatch, capsys):
    path, other = made("1"), files.workbooks()[0]
    monkeypatch.setattr(course.workbooks, "write", lambda: [other])
    monkeypatch.setattr(course, "run_all", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["course", "--in-place", str(path)])
    course.main()
    assert f"{other.relative_to(ROOT)} was written; run it" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["course_utils.exercises", "course_utils.loading"])
def test_help_does_nothing(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.setattr(files, "write_whole", lambda *_: pytest.fail("something was written"))
    with pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    assert f"usage: python -m {module}" in capsys.readouterr().out


def test_cost_is_written_into_the_title_cell(made, tmp_path):
    notebook = nbformat.read(made("1"), as_version=4)
    state_cost(notebook, Run(tmp_path, "A title", 125, int(2.34e9)))
    expected = "*Measured on two CPU cores with the model cached: 2 min 05 s, peak memory 2.3 GB.*"
    assert notebook.cells[0].source == f"# A title\n\n{expected}"
    notebook.cells[0].source = "# No line"
    with pytest.raises(ValueError, match="needs a line"):
        state_cost(notebook, Run(tmp_path, "A title", 1, 1))


@pytest.mark.parametrize(("seconds", "written"), [(59.4, "0 min 59 s"), (59.6, "1 min 00 s"), (779.7, "13 min 00 s")])
def test_no_minute_has_sixty_seconds(tmp_path, seconds, written):
    assert Run(tmp_path, "A title", seconds, 1).cost.startswith(f"{written}, ")


@pytest.mark.parametrize(("option", "runs"), [([], "lessons"), (["--all"], "all"), (["--in-place"], "all")])
def test_the_lessons_are_run_and_all_else_on_demand(option, runs, monkeypatch, tmp_path):
    seen = []

    def run(path, target, in_place):
        seen.append(site.name(path))
        return Run(path, "A title", 1, 1)

    for name in ("default_model_dir", "write_docs"):
        monkeypatch.setattr(course, name, lambda: None)
    monkeypatch.setattr(course.workbooks, "write", lambda: [])
    monkeypatch.setattr(course.site, "check", lambda: None)
    monkeypatch.setattr(course.site, "build", lambda *_: None)
    monkeypatch.setattr(course, "run", run)
    monkeypatch.setattr(course, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["course", *option])
    course.main()
    expected = files.lessons() if runs == "lessons" else [*files.notebooks(), *files.workbooks()]
    assert seen == [site.name(path) for path in expected]
