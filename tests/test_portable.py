"""Windows and macOS, where this was not run: nothing is called that only Linux has, and no path has to be plain."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import nbformat
import pytest

from course_utils.core.files import PACKAGE, ROOT, notebooks, workbooks

POSIX_MODULES = set("fcntl grp pty pwd posix readline resource syslog termios tty".split())
POSIX_NAMES = set(
    "os.fork os.forkpty os.getegid os.geteuid os.getgid os.getgroups os.getloadavg os.getpgid os.getuid os.killpg "
    "os.mkfifo os.nice os.sched_getaffinity os.setsid os.sysconf os.uname os.wait signal.SIGALRM signal.SIGHUP "
    "signal.SIGKILL signal.SIGUSR1 signal.alarm signal.pause signal.setitimer time.tzset".split()
)
POSIX_OPTIONS = {"preexec_fn", "process_group", "start_new_session", "shell"}  # the last one's language is the system's
MAINS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("__main__.py")
)  # a process that is spawned imports the file it was started from, under another name
ODD = "Übung à côté, 2. Teil"


def code() -> Iterator[tuple[str, str]]:
    """The code of package and notebooks."""
    for path in PACKAGE.rglob("*.py"):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in [*notebooks(), *workbooks()]:
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        yield path.relative_to(ROOT).as_posix(), "\n".join(cells)


def posix_only(source: str) -> list[str]:
    """What in a piece of code other systems lack, or read otherwise."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                found += [each.name for each in names if each.name in POSIX_MODULES]
            case ast.ImportFrom(module=module, names=names):
                found += [module] if module in POSIX_MODULES else []
                found += [f"{module}.{each.name}" for each in names if f"{module}.{each.name}" in POSIX_NAMES]
            case ast.Attribute(value=ast.Name(id=module), attr=name) if f"{module}.{name}" in POSIX_NAMES:
                found.append(f"{module}.{name}")
            case ast.keyword(arg=name) if name in POSIX_OPTIONS:
                found.append(name)
            case ast.Constant(value=str(text)) if re.match(r"/(tmp|dev|proc|usr|home)\b", text) or text == "fork":
                found.append(text)
            case ast.Call(func=ast.Attribute(attr="read_text" | "write_text"), keywords=named):
                found += [] if any(each.arg == "encoding" for each in named) else ["text in the system's encoding"]
    return found


def test_nothing_is_called_that_only_linux_and_macos_have():
    assert {name: found for name, source in code() if (found := posix_only(source))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from resource import getrusage",
        "from os import fork",
        "os.getuid()",
        "subprocess.run('ls', shell=True)",
        "open('/tmp/a')",
        "multiprocessing.get_context('fork')",
        "path.read_text()",
    ],
)
def test_what_other_systems_lack_is_seen(source):
    assert len(posix_only(source)) == 1


def test_every_file_can_be_checked_out_on_every_system():
    """Windows reserves names and letters, and tells no capitals apart, as macOS does not."""
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]
    assert len({name.casefold() for name in tracked}) == len(tracked)
    assert [name for name in tracked if re.search(r'[<>:"\\|?*]|[. ](/|$)', name) or len(name) > 150] == []
    assert [name for name in tracked if any(PureWindowsPath(part).is_reserved() for part in Path(name).parts)] == []


@pytest.mark.parametrize("name", MAINS)
def test_a_spawned_process_does_not_start_the_command_again(name, capsys):
    runpy.run_module(name, run_name="__mp_main__")
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """A copy of the course in a folder whose name has blanks, accents and dots."""
    copy = tmp_path_factory.mktemp("odd") / ODD
    for part in ("course_utils", "data", "docs", "instructors", "notebooks"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "mine"))
    for part in ("CLAIMS.md", "CONTRIBUTING.md", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / part, copy / part)
    return copy


def run(odd: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(odd), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=odd, env=environment, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.slow
def test_a_clone_in_a_folder_with_blanks_and_accents_writes_the_same_documents(odd):
    done = run(odd, "course_utils.course", "--docs")
    assert done.returncode == 0, done.stderr
    for name in ("README.md", "CLAIMS.md", "CONTRIBUTING.md", "data/README.md", "instructors/handout.html"):
        assert (odd / name).read_bytes() == (ROOT / name).read_bytes(), name


@pytest.mark.slow
def test_a_notebook_runs_there_and_the_site_is_built_there(odd):
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Odd\n\n*Measured on nothing yet.*"),
            nbformat.v4.new_code_cell("import course_utils\nprint(course_utils.__file__)"),
        ]
    )
    nbformat.write(notebook, odd / "notebooks" / "mein Übungsheft.ipynb")
    done = run(odd, "course_utils.course", "notebooks/mein Übungsheft.ipynb")
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(odd / "build" / "notebooks" / "mein Übungsheft.ipynb", as_version=4)
    assert Path(executed.cells[1].outputs[0].text.strip()).parent.parent == odd
    done = run(odd, "course_utils.course", "--site")
    assert done.returncode == 0, done.stderr
    assert (odd / "build" / "course" / "index.html").is_file()
