"""The first cell in its three places, and installing without touching torch or numpy."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import version
from types import SimpleNamespace

import nbformat
import pytest
from packaging.requirements import Requirement

from course_utils import bootstrap
from course_utils.core import noise
from course_utils.core.files import ROOT, notebook, notebooks
from course_utils.course.execute import execute


def test_nothing_is_missing_here():
    assert bootstrap.missing(bootstrap.requirements()) == []


def test_first_import_of_the_libraries_is_quiet():
    """bitsandbytes reports an optional kernel when it is imported, on some CPUs; the first cell comes before that."""
    code = "from course_utils import bootstrap; bootstrap.ensure(); import peft, bitsandbytes, trl"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`past_key_values` is deprecated and will be removed in version 5.40.0 for `LlamaForCausalLM.forward`.", 0),
        ("`past_key_values` is ignored", 1),
        ("`gradient_checkpointing_disable` is deprecated and will be removed in v6. Use `activation_checkpointing_", 0),
    ],
)
def test_known_noise_is_silent_and_everything_else_is_not(message, shown):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        noise.quiet()
        warnings.warn(message, FutureWarning, stacklevel=1)
    assert len(seen) == shown


def test_missing_and_too_old_are_found():
    wanted = [Requirement(r) for r in ("torch>=2.0", "numpy>=99", "no-such-package>=1", "numpy; python_version<'3'")]
    assert [str(r) for r in bootstrap.missing(wanted)] == ["numpy>=99", "no-such-package>=1"]


def test_installs_only_what_is_missing_with_torch_and_numpy_held_fixed(monkeypatch, capsys):
    calls = []

    def run(command, **options):
        with open(command[command.index("--constraint") + 1], encoding="utf-8") as file:
            calls.append((command, file.read()))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(
        bootstrap, "requirements", lambda *_: [Requirement("torch>=2.0"), Requirement("no-such-package>=1")]
    )
    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    bootstrap.ensure()
    command, constraints = calls[0]
    assert command[command.index("--constraint") + 2 :] == ["no-such-package>=1"]
    assert f"torch=={version('torch')}\n" in constraints
    assert f"numpy=={version('numpy')}\n" in constraints
    assert "Installed no-such-package" in capsys.readouterr().out


def write_distribution(folder, name: str, version: str) -> None:
    """An installed package that consists of one empty module."""
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "__init__.py").touch()
    for old in folder.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n", encoding="utf-8")


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """What stands in for pip: it installs the missing `aaa` and, on the way, a newer `bbb` in place of version 1.0."""

    def run(*_, **__) -> SimpleNamespace:
        write_distribution(tmp_path, "aaa", "1.0")
        write_distribution(tmp_path, "bbb", "2.0")
        return SimpleNamespace(returncode=0)

    write_distribution(tmp_path, "bbb", "1.0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(bootstrap, "requirements", lambda *_: [Requirement("aaa")])
    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    monkeypatch.setattr(bootstrap, "_replaced", {}, raising=False)
    yield
    sys.modules.pop("bbb", None)


@pytest.mark.usefixtures("pip")
def test_a_loaded_package_that_pip_replaced_stops_the_cell_until_the_kernel_is_restarted(monkeypatch):
    """`bbb` is not asked for: it is what pyarrow is to datasets. Running the cell again does not help, either."""
    importlib.import_module("bbb")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"^Restart the kernel .*bbb 1.0 \(now 2.0\)$"):
            bootstrap.ensure()
    monkeypatch.setattr(bootstrap, "_replaced", {})  # what a restart does
    bootstrap.ensure()


@pytest.mark.usefixtures("pip")
def test_a_replaced_package_that_was_not_loaded_needs_no_restart(capsys):
    bootstrap.ensure()
    assert capsys.readouterr().out == "Installed aaa.\n"
    bootstrap.ensure()
    assert capsys.readouterr().out == ""


def test_what_is_loaded_is_known_by_its_distribution():
    versions = bootstrap.loaded()
    assert versions["PyYAML"] == version("PyYAML")  # imported as yaml
    assert "jupyterlab" not in versions
    assert "jupyterlab" not in sys.modules


@pytest.mark.parametrize("name", ["numpy", "ipython", "ipykernel", "tornado", "traitlets", "matplotlib"])
def test_what_the_host_runs_on_is_never_replaced(name, monkeypatch):
    """A kernel whose own packages were exchanged under it cannot go on."""
    monkeypatch.setattr(bootstrap, "requirements", lambda *_: [Requirement(f"{name}>=999")])
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    with pytest.raises(RuntimeError, match=f"Too old here.*not touched: {name} .*%pip install .{name}>=999"):
        bootstrap.ensure()
    assert f"{name}=={version(name)}\n" in bootstrap.kept_versions()


@pytest.mark.parametrize(
    ("found", "code", "printed"),
    [
        ("0.10.0", "import peft.import_utils; print(peft.import_utils.is_torchao_available())", "False"),
        ("0.16.0", "import importlib.util; print(importlib.util.find_spec('torchao') is None)", "False"),
    ],
)
def test_old_torchao_is_hidden_from_peft_and_a_new_one_is_not(found, code, printed, tmp_path):
    """Some hosts bring torchao 0.10, beside which PEFT raises ImportError when it puts LoRA into a model."""
    write_distribution(tmp_path, "torchao", found)
    command = [sys.executable, "-c", f"from course_utils import bootstrap; bootstrap.ensure(); {code}"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == printed, done.stderr


def imports(name: str) -> list[str]:
    """The import statements of a notebook after its first cell."""
    nodes = [node for cell in cells(name)[1:] for node in ast.walk(ast.parse(cell.source))]
    return [ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]


def test_first_three_notebooks_need_no_package_of_the_fourth():
    """Where datasets is too old, installing it exchanges pyarrow under a loaded pandas: only 04 asks for it."""
    names = {r.name for r in bootstrap.requirements()}
    assert names.isdisjoint({"trl", "datasets"})
    only_04 = {r.name for r in bootstrap.requirements("sft")} - names
    assert only_04 == {"trl", "datasets", "sacrebleu"}
    absent = f"import sys; sys.modules.update(dict.fromkeys({sorted(only_04)}))"
    code = "\n".join([absent, *(line for name in NOTEBOOKS if name[:2] != "04" for line in imports(name))])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_torch_that_is_too_old_is_not_touched(monkeypatch):
    monkeypatch.setattr(bootstrap, "requirements", lambda *_: [Requirement("torch>=99")])
    monkeypatch.setattr(bootstrap.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    with pytest.raises(RuntimeError, match="Too old here.*not touched: torch .*%pip install .torch>=99"):
        bootstrap.ensure()


def cells(name: str) -> list[nbformat.NotebookNode]:
    found = nbformat.read(notebook(name), as_version=4).cells
    return [cell for cell in found if cell.cell_type == "code"]


def first_cell(name: str) -> str:
    return cells(name)[0].source


NOTEBOOKS = [path.stem for path in notebooks()]


def test_all_notebooks_share_the_first_cell_and_only_the_last_and_its_half_ask_for_the_sft_packages():
    assert len({first_cell(name).replace('ensure("sft")', "ensure()") for name in NOTEBOOKS}) == 1
    assert [name[:2] for name in NOTEBOOKS if 'ensure("sft")' in first_cell(name)] == ["04", "04"]


def without_course(tmp_path) -> dict[str, str]:
    """An environment in which the installed course cannot be imported, but everything else can."""
    hook = "import os, sys\nsys.path[:] = [p for p in sys.path if not os.path.isdir(os.path.join(p, 'course_utils'))]\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(hook, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> str:
    """A git repository of the course as it stands here."""
    folder = tmp_path_factory.mktemp("repository")
    for part in ("course_utils", "data"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *command], check=True)
    return str(folder)


def run_first_cell(folder, environment, *, then: str) -> subprocess.CompletedProcess:
    code = f"{first_cell(NOTEBOOKS[0])}\n{then}"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


WHERE = "import course_utils, pathlib; print(pathlib.Path(course_utils.__file__).parent.parent.resolve())"


def test_lone_notebook_brings_the_course_from_a_repository(tmp_path, repository):
    """An empty folder, no course installed, `COURSE_REPO` naming a local clone."""
    (tmp_path / "empty").mkdir()
    environment = {**without_course(tmp_path), "COURSE_REPO": repository}
    done = run_first_cell(tmp_path / "empty", environment, then=WHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "empty" / "lora-course")


def test_lone_notebook_finds_its_clone_again(tmp_path, repository):
    """After a restart of the kernel, or in a second notebook beside the first."""
    (tmp_path / "empty").mkdir()
    environment = {**without_course(tmp_path), "COURSE_REPO": repository}
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


def test_an_interrupted_clone_is_not_taken_for_the_course(tmp_path, repository):
    """git is killed when half the files are there; the next run of the cell fetches the whole course."""
    (tmp_path / "empty").mkdir()
    environment = {**without_course(tmp_path), "COURSE_REPO": repository}
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
    assert "nowhere; correct COURSE_REPO, then run this again: fatal: repository" in done.stderr
    done = run_first_cell(tmp_path / "empty", {**environment, "PATH": str(tmp_path)}, then=WHERE)
    assert "git fetches the course and is missing here: install it" in done.stderr
    (tmp_path / "empty" / "lora-course").mkdir()
    done = run_first_cell(tmp_path / "empty", environment, then=WHERE)
    assert "lora-course holds no course_utils: delete it" in done.stderr


@pytest.mark.slow
def test_whole_lone_notebook_runs_in_an_empty_folder(tmp_path, repository, monkeypatch):
    """Notebook 01, alone, from its first cell to its last, with nothing but `COURSE_REPO` to go by."""
    lone = tmp_path / "empty" / "01_lora.ipynb"
    lone.parent.mkdir()
    shutil.copy(notebook(lone.stem), lone)
    for name, value in {**without_course(tmp_path), "COURSE_REPO": repository}.items():
        monkeypatch.setenv(name, value)
    executed, _ = execute(lone)
    assert (lone.parent / "lora-course" / "course_utils").is_dir()
    assert [cell.execution_count for cell in executed.cells if cell.cell_type == "code"][-1] > 20


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
