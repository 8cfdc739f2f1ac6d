"""Is everything installed that the notebooks need? If not, add it without touching the torch and numpy already here.

Standard library and `packaging` only: this runs before anything else is known to be there. It also silences the known
noise of the libraries, because some of it is made when they are first imported.
"""

import importlib.metadata as metadata
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from course_utils import noise

KEPT = ("torch", "torchvision", "torchaudio", "numpy", "scipy", "pandas")


def ensure(*extras: str) -> None:
    """Install what is missing or too old, and say so; do nothing, silently, when all is there.

    Packages of `KEPT` that are present keep their version exactly. If one of them is itself too old, nothing is
    installed, and the message says what to upgrade.

    Raises:
        RuntimeError: a package that must not be touched is too old, or pip failed.
    """
    noise.quiet()
    needed = missing(requirements(*extras))
    if not needed:
        return
    blocked = [requirement for requirement in needed if installed(requirement.name) and requirement.name in KEPT]
    if blocked:
        raise RuntimeError(
            f"Too old here: {', '.join(map(str, blocked))}. Upgrade it yourself, then restart the kernel."
        )
    imported = [requirement.name for requirement in needed if requirement.name.replace("-", "_") in sys.modules]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(kept_versions())
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        if subprocess.run([*command, *map(str, needed)], stdout=2).returncode:
            raise RuntimeError(f"pip could not install {', '.join(map(str, needed))}; its message is above.")
    print(f"Installed {', '.join(requirement.name for requirement in needed)}.")
    if imported:
        print(f"Restart the kernel now: {', '.join(imported)} had been imported in an older version.")


def requirements(*extras: str) -> list[Requirement]:
    """What `course_utils` and these of its extras depend on here: from pyproject.toml beside it, or as installed."""
    project = Path(__file__).parent.parent / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        lines = table["dependencies"] + [line for extra in extras for line in table["optional-dependencies"][extra]]
    else:
        lines = metadata.requires("course-utils") or []
    found = [Requirement(line) for line in lines]
    return [r for r in found if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in ("", *extras))]


def installed(name: str) -> str | None:
    """The version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(wanted: list[Requirement]) -> list[Requirement]:
    """Those requirements that are not installed in a version that fits (local labels such as +cpu are ignored)."""
    return [
        r for r in wanted if not (found := installed(r.name)) or not r.specifier.contains(found, prereleases=True)
    ]


def kept_versions() -> str:
    """A pip constraints file that pins the packages that must stay as they are."""
    return "".join(f"{name}=={version}\n" for name in KEPT if (version := installed(name)))
