"""requirements.txt, pyproject.toml and environment.yml agree with each other and with what is installed."""

import importlib.metadata as metadata
import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in LINES)}
RANGES = [
    Requirement(r) for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()] for r in group
]


def test_torch_comes_first():
    assert LINES[0] == "torch==2.13.0"


@pytest.mark.parametrize("requirement", RANGES, ids=lambda r: r.name)
def test_every_range_is_a_tested_lower_bound_that_the_pin_satisfies(requirement):
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    (bound,) = requirement.specifier
    assert bound.operator == ">=", "no upper pins"
    assert pin == bound.version or pin.startswith(f"{bound.version}."), "the lower bound is the version that CI runs"


def needs(name: str) -> list[str]:
    """What an installed package requires on this machine."""
    found = [Requirement(line) for line in metadata.requires(name) or []]
    return [canonicalize_name(r.name) for r in found if r.marker is None or r.marker.evaluate({"extra": ""})]


def test_everything_installed_for_the_course_is_pinned_transitively():
    for name in PINS:
        assert metadata.version(name).partition("+")[0] == PINS[name], name
        assert set(needs(name)) <= set(PINS) | {"setuptools"}, name


def test_environment_installs_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.txt", "-e ."]
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python"))
    assert PROJECT["requires-python"] == python.removeprefix("python") == ">=3.11"


def test_no_registry_is_named():
    for name in ("requirements.txt", "environment.yml", "pyproject.toml", "Makefile", "README.md"):
        assert not re.search(r"index-url|pypi\.org|download\.pytorch", (ROOT / name).read_text()), name
