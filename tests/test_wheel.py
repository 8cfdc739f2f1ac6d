"""The built wheel, in an empty environment outside the clone: what works there, and what says why it does not."""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from course_utils.core.files import ROOT
from course_utils.loading import cache

pytestmark = pytest.mark.slow
Ran = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, in which nothing lies that git ignores."""
    copy, target = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("dist")
    for name in ("course_utils", "data"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = target.iterdir()
    return found


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory) -> Ran:
    """Runs `python -m ...` in a folder of its own, with the wheel installed and the libraries of this environment."""
    home, place = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COURSE_CACHE")}
    environment = kept | {"COURSE_CACHE": str(cache.cache_dir())}

    def ran(*arguments: str, **changes: str) -> subprocess.CompletedProcess:
        command = [python, *arguments]
        return subprocess.run(command, cwd=place, env=environment | changes, capture_output=True, text=True)

    ran.place, ran.site = place, site
    return ran


def test_it_holds_package_and_data_and_nothing_else(wheel):
    with ZipFile(wheel) as archive:
        inside = {name.partition("/")[0] if ".dist-info" in name else name for name in archive.namelist()}
    tracked = subprocess.check_output(["git", "ls-files", "course_utils", "data"], cwd=ROOT, text=True).split()
    expected = {re.sub("^data/", "course_utils/data/", name) for name in tracked}
    assert {name for name in inside if not name.endswith(".dist-info")} == expected


def test_it_is_the_installed_package_that_runs(run):
    done = run("-c", "import course_utils; print(course_utils.__file__)")
    assert Path(done.stdout.strip()).parent.parent == run.site, done.stderr


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ("-m course_utils.loading", "SmolLM2-135M-Instruct is ready in "),
        ("-m course_utils.memory plan SmolLM2-135M --gpu-gb 16", "GB"),
        ("-m course_utils.studies dates", "dates: 0 of "),
        ("-m course_utils.training --help", "usage: python -m course_utils.training"),
    ],
)
def test_commands_that_work(run, arguments, printed):
    done = run(*arguments.split())
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
    assert list(run.place.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("command", ["course_utils.course", "course_utils.exercises"])
def test_commands_that_need_the_notebooks_say_so(run, command):
    done = run("-m", command)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"python -m {command} needs the notebooks, and an installed package has none \(.+\)\. Clone .+ there\.\n",
        done.stderr,
    ), done.stderr


def test_every_data_file_is_found(run):
    code = """
from course_utils import bootstrap, claims, datafiles, studies, tournament
bootstrap.ensure("sft")
sizes = [len(datafiles.load_conversations()), len(datafiles.load_passages()), len(datafiles.load_prompts())]
tables = [datafiles.load_figures("peak_memory"), studies.table("dates"), tournament.published()]
print(min(sizes + [len(table) for table in tables] + [len(claims.load_claims())]))
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_a_training_reads_its_recipe_where_it_stands(run):
    done = run("-m", "course_utils.training", "no-such.yaml")
    assert done.returncode == 1
    assert re.match(r"python -m course_utils\.training: .*no-such\.yaml", done.stderr), done.stderr


def test_a_relative_cache_starts_at_the_current_folder(run):
    code = "from course_utils.loading import cache; print(cache.cache_dir())"
    assert run("-c", code, COURSE_CACHE="here").stdout.strip() == str(run.place / "here")
