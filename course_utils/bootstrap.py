"""Is everything installed that the notebooks need? If not, add it without touching what the notebook's host runs on.

Standard library and `packaging` only: this runs before anything else is known to be there. It also silences the known
noise of the libraries, because some of it is made when they are first imported.
"""

import importlib
import importlib.metadata as metadata
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from course_utils.core import noise
from course_utils.core.files import ROOT

KEPT = (
    "torch torchvision torchaudio numpy scipy pandas matplotlib psutil requests "
    "ipython ipykernel ipywidgets jupyter_client jupyter_server notebook tornado traitlets"
).split()
PEFT_NEEDS_TORCHAO = Version("0.16")  # peft refuses to work beside an older one
_replaced: dict[str, str] = {}  # loaded here and replaced by pip: true until the kernel is restarted


def ensure(*extras: str) -> None:
    """Install what is missing or too old, and say so; do nothing, silently, when all is there.

    Packages of `KEPT` that are present keep their version exactly. If one of them is itself too old, nothing is
    installed, and the message says what to upgrade. `extras` are groups of pyproject.toml that are needed as well.

    Raises:
        RuntimeError: a package that must not be touched is too old, pip failed, or pip replaced a package that this
            kernel has already loaded, so that the kernel has to be restarted.
    """
    noise.quiet()
    hide_old_torchao()
    if needed := missing(requirements(*extras)):
        before = loaded()
        install(needed)
        print(f"Installed {', '.join(requirement.name for requirement in needed)}.")
        _replaced.update({name: version for name, version in before.items() if installed(name) != version})
    if _replaced:
        raise RuntimeError(
            "Restart the kernel (Colab: Runtime, Restart session; Kaggle: Run, Restart; Jupyter: Kernel, Restart), "
            "then run the notebook from the top. All is installed, but this kernel had already loaded other versions: "
            + ", ".join(f"{name} {version} (now {installed(name)})" for name, version in _replaced.items())
        )


def install(needed: list[Requirement]) -> None:
    """Let pip install these, with every package of `KEPT` held as it is.

    Raises:
        RuntimeError: one of them is itself a package of `KEPT`, too old, or pip failed.
    """
    blocked = [requirement for requirement in needed if installed(requirement.name) and requirement.name in KEPT]
    if blocked:
        raise RuntimeError(
            "Too old here, and what this host runs on, so it is not touched: "
            + ", ".join(f"{requirement.name} {installed(requirement.name)}" for requirement in blocked)
            + f". Run `%pip install {' '.join(repr(str(requirement)) for requirement in blocked)}` in a cell, then "
            "restart the kernel."
        )
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(kept_versions(), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        if subprocess.run([*command, *map(str, needed)], stdout=2).returncode:
            raise RuntimeError(f"pip could not install {', '.join(map(str, needed))}; its message is above.")
    importlib.invalidate_caches()


def hide_old_torchao() -> None:
    """Let a torchao that PEFT refuses look absent in this process; nothing is uninstalled."""
    found = installed("torchao")
    if found and Version(found) < PEFT_NEEDS_TORCHAO and "torchao" not in sys.modules:
        sys.modules["torchao"] = None


def loaded() -> dict[str, str]:
    """Distributions of which something is imported in this process, with their installed versions."""
    found = metadata.packages_distributions()
    return {name: metadata.version(name) for module in found.keys() & sys.modules.keys() for name in found[module]}


def requirements(*extras: str) -> list[Requirement]:
    """What `course_utils` and these of its extras depend on here: from pyproject.toml beside it, or as installed."""
    project = ROOT / "pyproject.toml"
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
    return [r for r in wanted if not (found := installed(r.name)) or not r.specifier.contains(found, prereleases=True)]


def kept_versions() -> str:
    """A pip constraints file that pins the packages that must stay as they are."""
    return "".join(f"{name}=={version}\n" for name in KEPT if (version := installed(name)))
