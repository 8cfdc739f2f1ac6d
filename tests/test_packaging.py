"""requirements.txt, pyproject.toml and environment.yml agree with each other and with what is installed."""

import importlib.metadata as metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from course_utils.core.files import ROOT
from course_utils.datafiles import shipped_adapter
from tests.hosted import environments


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """The packages of a requirements file, with their versions."""
    lines = [line for line in text(name).splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in (line.split("==") for line in lines)}


PROJECT = tomllib.loads(text("pyproject.toml"))["project"]
PINS, LITGPT, BROWSER = (pins(f"requirements{which}.txt") for which in ("", "-litgpt", "-browser"))
RUNS = {"make test": PINS} | {name: report["versions"] for name, report in environments.reports().items()}
EXTRAS = {name: list(map(Requirement, lines)) for name, lines in PROJECT["optional-dependencies"].items()}
NEEDED = list(map(Requirement, PROJECT["dependencies"]))
RANGES = [r for group in (NEEDED, *EXTRAS.values()) for r in group if r.name != PROJECT["name"]]
PYTHONS = ("3.11.0", "3.12.0", "3.13.0", "3.14.0")  # for the newest the test run cannot see wheels; pip was asked once
CUDA = re.compile(r"triton|(nvidia|cuda)-.+")  # what torch brings on Linux, unless it is the CPU-only build
DRIFTED = "The pins of requirements.txt are not what was asked for here, but the ranges of pyproject.toml."


def pins_were_asked_for() -> bool:
    """Whether pip was given requirements.txt: it marks what it was asked for by name, in whatever version."""
    found = [d for d in metadata.distributions() if canonicalize_name(d.name) in PINS]
    marked = [d for d in found if any(file.name == "REQUESTED" for file in d.files or [])]
    return len(marked) > len(PINS) / 2


PINNED = pins_were_asked_for()


def admits(bound: str, version: str) -> bool:
    return version == bound or version.startswith(f"{bound}.")


def lowest_bound(requirement: Requirement) -> str:
    (bound,) = requirement.specifier
    assert bound.operator == ">=", "no upper pins"
    return bound.version


def found_by(requirement: Requirement) -> str:
    """The run in which the course worked with the lower bound of a range."""
    name, bound = canonicalize_name(requirement.name), lowest_bound(requirement)
    return next((run for run, versions in RUNS.items() if admits(bound, versions.get(name, ""))), "no run")


def test_torch_comes_first():
    assert next(iter(PINS)) == "torch"


@pytest.mark.parametrize("requirement", RANGES, ids=lambda r: f"{r}, by {found_by(r)}")
def test_every_lower_bound_is_the_lowest_version_that_a_run_worked_with(requirement):
    """`pytest -v` lists the runs: `make test` takes the pins, `make hosted` the others (tests/hosted/reports/)."""
    name, bound = canonicalize_name(requirement.name), lowest_bound(requirement)
    assert requirement.specifier.contains(PINS[name])
    assert found_by(requirement) != "no run"
    below = {run: versions[name] for run, versions in RUNS.items() if name in versions}
    assert all(admits(bound, found) or Version(found) > Version(bound) for found in below.values()), (
        "a lower one worked"
    )


def test_the_browser_checks_need_nothing_that_another_file_pins():
    assert not set(BROWSER) & (set(PINS) | set(LITGPT))


@pytest.mark.parametrize("extra", ["lab", "test"])
def test_the_larger_extras_bring_the_smaller_ones(extra):
    (own,) = [r for r in EXTRAS[extra] if r.name == PROJECT["name"]]
    assert own.extras == {"run", "sft", "site"}


def test_an_install_of_the_pins_is_known_as_one():
    """`make install` leaves its mark in .venv: there, the tests of the pins must not be left out."""
    assert PINNED or not Path(sys.prefix, ".installed").exists()


def requirements_here(name: str) -> list[Requirement]:
    """What an installed package requires on this machine."""
    found = [Requirement(line) for line in metadata.requires(name) or []]
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


@pytest.mark.skipif(not PINNED, reason=DRIFTED)
def test_everything_installed_for_the_course_is_pinned_transitively():
    for name, pin in PINS.items():
        assert metadata.version(name).partition("+")[0] == pin, name
        for needed in requirements_here(name):
            package = canonicalize_name(needed.name)
            if package != "setuptools" and not CUDA.fullmatch(package):
                assert needed.specifier.contains(PINS[package], prereleases=True), f"{name} needs {needed}"


@pytest.mark.skipif(not PINNED, reason=DRIFTED)
def test_what_lit_gpt_needs_is_pinned_too_and_only_one_version_is_not_the_one_it_asks_for():
    """Its second step installs no dependencies: they are all here, whichever file pins them."""
    every, differing = PINS | LITGPT, set()
    for name, pin in LITGPT.items():
        assert metadata.version(name) == pin, name
        for needed in requirements_here(name):
            package = canonicalize_name(needed.name)
            if package != "setuptools":
                assert package in every, f"{name} needs {needed}"
                differing |= set() if needed.specifier.contains(every[package], prereleases=True) else {package}
    assert differing == {"huggingface-hub"}
    assert not set(PINS) & set(LITGPT), "it touches nothing that is there"


@pytest.mark.parametrize("name", ["Makefile", "README.md"])
def test_lit_gpt_is_a_step_of_the_set_up_and_no_extra(name):
    steps = [line for line in text(name).splitlines() if "-r requirements" in line]
    assert [line.split("-r ")[1] for line in steps] == ["requirements.txt", "requirements-litgpt.txt"]
    assert "--no-deps" in steps[1]
    assert not [extra for extra in EXTRAS if "litgpt" in {r.name for r in EXTRAS[extra]}]


@pytest.mark.skipif(not PINNED, reason=DRIFTED)
@pytest.mark.parametrize("python", PYTHONS)
def test_pins_admit_every_python_that_the_course_names(python):
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    wanted = {name: metadata.metadata(name).get("Requires-Python") for name in PINS}
    assert [name for name, versions in wanted.items() if versions and not SpecifierSet(versions).contains(python)] == []


@pytest.mark.parametrize("name", ["README.md", "Makefile", "requirements.txt"])
def test_the_ways_in_name_the_same_pythons(name):
    first, last = (".".join(python.split(".")[:2]) for python in (PYTHONS[0], PYTHONS[-1]))
    assert PROJECT["requires-python"] == f">={first}"
    assert f"Python {first} to {last}" in text(name)


def test_conda_brings_python_and_pip_and_the_pins_bring_the_rest():
    """Nothing is left for pip to find: what its lines ask for are pins, which fit the ranges of the course itself."""
    dependencies = yaml.safe_load(text("environment.yml"))["dependencies"]
    python, pip, lines = dependencies[0], dependencies[1], dependencies[2]["pip"]
    assert (Requirement(python).name, pip, len(dependencies)) == ("python", "pip", 3)
    allowed = [version for version in ("3.10.9", *PYTHONS, "3.15.0") if Requirement(python).specifier.contains(version)]
    assert tuple(allowed) == PYTHONS
    files = [line.removeprefix("-r ") for line in lines if line.startswith("-r ")]
    assert [line for line in lines if line not in (f"-r {files[0]}", "-e .")] == []
    found = pins(files[0])
    assert [str(r) for r in NEEDED if not r.specifier.contains(found.get(canonicalize_name(r.name), "0"))] == []


def test_tests_are_found_where_a_library_brings_a_package_of_the_same_name(tmp_path):
    """IPython 7.34 puts a folder on sys.path that holds a package `tests`: it hides a folder without __init__."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import tests.notebooks.strict_nbval"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_wheel_brings_the_data_and_with_them_the_adapter():
    wheel = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"] == ["course_utils", "data"]
    assert wheel["sources"] == {"data": "course_utils/data"}, "where files.data_dir looks for them"
    assert shipped_adapter().is_relative_to(ROOT / "data")


def test_no_registry_is_named():
    for name in ("requirements.txt", "environment.yml", "pyproject.toml", "Makefile", "README.md"):
        assert not re.search(r"index-url|pypi\.org|download\.pytorch", text(name)), name
