"""The first cell in its three places, and installing without touching torch or numpy."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import nbformat
import pytest
from packaging.requirements import Requirement

from course_utils import bootstrap, course
from tests.conftest import ROOT


def test_nothing_is_missing_here():
    assert bootstrap.missing(bootstrap.requirements()) == []


def test_first_import_of_the_libraries_is_quiet():
    """bitsandbytes reports an optional kernel when it is imported, on some CPUs; the first cell comes before that."""
    code = "from course_utils import bootstrap; bootstrap.ensure(); import peft, bitsandbytes, trl"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_missing_and_too_old_are_found():
    wanted = [Requirement(r) for r in ("torch>=2.0", "numpy>=99", "no-such-package>=1", "numpy; python_version<'3'")]
    assert [str(r) for r in bootstrap.missing(wanted)] == ["numpy>=99", "no-such-package>=1"]


def test_installs_only_what_is_missing_with_torch_and_numpy_held_fixed(monkeypatch, capsys):
    calls = []

    def run(command, **options):
        with open(command[command.index("--constraint") + 1]) as file:
            calls.append((command, file.read()))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(
        bootstrap, "requirements", lambda: [Requirement("torch>=2.0"), Requirement("no-such-package>=1")]
    )
    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    bootstrap.ensure()
    command, constraints = calls[0]
    assert command[command.index("--constraint") + 2 :] == ["no-such-package>=1"]
    assert f"torch=={version('torch')}\n" in constraints
    assert f"numpy=={version('numpy')}\n" in constraints
    assert "Installed no-such-package" in capsys.readouterr().out


def test_a_loaded_package_that_was_replaced_asks_for_a_restart(monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "requirements", lambda: [Requirement("pytest>=99")])
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    bootstrap.ensure()
    assert "Restart the kernel" in capsys.readouterr().out


def test_torch_that_is_too_old_is_not_touched(monkeypatch):
    monkeypatch.setattr(bootstrap, "requirements", lambda: [Requirement("torch>=99")])
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    with pytest.raises(RuntimeError, match="Too old here: torch>=99"):
        bootstrap.ensure()


def first_cell(name: str) -> str:
    return next(c.source for c in nbformat.read(ROOT / "notebooks" / name, as_version=4).cells if c.cell_type == "code")


NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("0*.ipynb"))


def test_all_notebooks_share_the_first_cell_and_only_the_last_asks_for_the_sft_packages():
    assert len({first_cell(name).replace('ensure("sft")', "ensure()") for name in NOTEBOOKS}) == 1
    assert [name[:2] for name in NOTEBOOKS if 'ensure("sft")' in first_cell(name)] == ["04"]


def without_course(tmp_path) -> dict[str, str]:
    """An environment in which the installed course cannot be imported, but everything else can."""
    hook = "import sys\nsys.path[:] = [p for p in sys.path if p != {!r}]\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(hook.format(str(ROOT)))
    return {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}


def run_first_cell(folder, environment, *, then: str) -> subprocess.CompletedProcess:
    code = f"{first_cell(NOTEBOOKS[0])}\n{then}"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


WHERE = "import course_utils, pathlib; print(pathlib.Path(course_utils.__file__).parent.parent.resolve())"


def test_lone_notebook_brings_the_course_from_a_repository(tmp_path):
    """An empty folder, no course installed, `COURSE_REPO` naming a local clone."""
    (tmp_path / "empty").mkdir()
    environment = {**without_course(tmp_path), "COURSE_REPO": str(ROOT)}
    done = run_first_cell(tmp_path / "empty", environment, then=WHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "empty" / "lora-course")


def test_lone_notebook_finds_its_clone_again(tmp_path):
    """After a restart of the kernel, or in a second notebook beside the first."""
    (tmp_path / "empty").mkdir()
    environment = {**without_course(tmp_path), "COURSE_REPO": str(ROOT)}
    for _ in range(2):
        done = run_first_cell(tmp_path / "empty", environment, then=WHERE)
        assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["lora-course"]


def fake_git(folder, script: str) -> str:
    """A PATH on which only this `git` is found."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / "git").chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_an_interrupted_clone_is_not_taken_for_the_course(tmp_path):
    """git is killed when half the files are there; the next run of the cell fetches the whole course."""
    (tmp_path / "empty").mkdir()
    environment = {**without_course(tmp_path), "COURSE_REPO": str(ROOT)}
    half = fake_git(tmp_path / "bin", 'for d; do :; done; mkdir -p "$d/course_utils"; kill -9 $$')
    done = run_first_cell(tmp_path / "empty", {**environment, "PATH": half}, then=WHERE)
    assert done.returncode != 0
    done = run_first_cell(tmp_path / "empty", environment, then="from course_utils import chat; " + WHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "empty" / "lora-course")


def test_each_failure_of_a_lone_notebook_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    environment = {**without_course(tmp_path), "COURSE_REPO": str(tmp_path / "nowhere")}
    done = run_first_cell(tmp_path / "empty", environment, then=WHERE)
    assert "nowhere, which COURSE_REPO names: fatal: repository" in done.stderr
    done = run_first_cell(tmp_path / "empty", {**environment, "PATH": str(tmp_path)}, then=WHERE)
    assert "git fetches the course and is missing here: install it" in done.stderr
    (tmp_path / "empty" / "lora-course").mkdir()
    done = run_first_cell(tmp_path / "empty", environment, then=WHERE)
    assert "The folder lora-course is not the course: delete it" in done.stderr


@pytest.mark.slow
def test_whole_lone_notebook_runs_in_an_empty_folder(tmp_path, monkeypatch):
    """Notebook 01, alone, from its first cell to its last, with nothing but `COURSE_REPO` to go by."""
    lone = tmp_path / "empty" / "01_lora.ipynb"
    lone.parent.mkdir()
    shutil.copy(ROOT / "notebooks" / lone.name, lone)
    for name, value in {**without_course(tmp_path), "COURSE_REPO": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    notebook, _ = course.execute(lone)
    assert (lone.parent / "lora-course" / "course_utils").is_dir()
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"][-1] > 20


def test_lone_notebook_without_a_repository_says_what_to_set(tmp_path):
    (tmp_path / "empty").mkdir()
    environment = {k: v for k, v in without_course(tmp_path).items() if k != "COURSE_REPO"}
    done = run_first_cell(tmp_path / "empty", environment, then=WHERE)
    assert done.returncode != 0
    assert "os.environ['COURSE_REPO']" in done.stderr


def test_in_a_clone_the_package_beside_the_notebooks_is_used(tmp_path):
    shutil.copytree(ROOT / "course_utils", tmp_path / "clone" / "course_utils")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "clone")
    (tmp_path / "clone" / "notebooks").mkdir()
    done = run_first_cell(tmp_path / "clone" / "notebooks", without_course(tmp_path), then=WHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "clone")
