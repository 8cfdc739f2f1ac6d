"""Which environments are tried, and what stands in them before a notebook's first cell runs?"""

import json
import re
import tomllib
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_utils.core.files import ROOT

HERE = Path(__file__).parent
PYTHONS = {"kaggle": "3.12", "colab": "3.13", "lowest": "3.12", "newest": "3.13"}
IMAGES = ("kaggle", "colab")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@cache
def image(name: str) -> dict[str, str]:
    """The packages that a hosted service brings, with their versions, labels such as +cu128 among them."""
    lines = (HERE / "images" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(package): version for package, version in pairs}


def ranges() -> list[Requirement]:
    """What the notebooks ask for, and the kernel that runs them."""
    lines = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["sft"]
    kernel = [line for line in PROJECT["optional-dependencies"]["run"] if line.startswith("ipykernel")]
    return [Requirement(line) for line in [*lines, *kernel]]


def lowest(requirement: Requirement) -> str:
    """The same requirement, for its lower bound alone: `>=2.10` becomes `==2.10.*`."""
    (bound,) = requirement.specifier
    return f"{requirement.name}=={bound.version}.*"


def packages(name: str) -> list[str]:
    """What pip is asked for when the environment is made. The course is not among it: a first cell brings that."""
    if name in IMAGES:  # a label such as +cu128 names a build, which is not everywhere to be had
        return [f"{package}=={re.sub(r'[+].*', '', version)}" for package, version in image(name).items()]
    return [lowest(each) if name == "lowest" else str(each) for each in ranges()]


def reports() -> dict[str, dict]:
    """What was found, by environment."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "reports").glob("*"))}
