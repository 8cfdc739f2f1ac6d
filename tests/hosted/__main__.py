"""`make hosted`: make each environment afresh, run the notebooks in it as a hosted user does, and write what was found.

python -m tests.hosted                                   # all environments, all notebooks: hours, and 30 GB of disk
python -m tests.hosted kaggle                            # one
python -m tests.hosted kaggle notebooks/exercises/01.ipynb   # a try: some notebooks, and no report

An environment needs the Python that `environments.PYTHONS` names, on the PATH as python3.12. Each notebook lies alone
in an empty folder; its first cell clones this repository, as it was last committed. Compared are verdicts, not digits.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch
from packaging.utils import canonicalize_name

from course_utils.core import files
from course_utils.core.files import ROOT, write_whole
from course_utils.course import site
from course_utils.loading import cache, default_model_dir
from tests.hosted import environments, lone

PLACE = ROOT / "build" / "hosted"
PIP = ("-m", "pip", "--disable-pip-version-check")
CONDAS = ("conda", "mamba", "micromamba")


def find_python(version: str) -> str:
    """The command of a Python of that version.

    Raises:
        SystemExit: there is none that starts.
    """
    command = shutil.which(f"python{version}")
    if command is None or subprocess.run([command, "--version"], capture_output=True).returncode:
        sys.exit(
            f"This environment needs Python {version}: put it on the PATH as python{version}, then run this again."
        )
    return command


def make(name: str) -> Path:
    """A new environment with its packages; the path of its Python.

    Raises:
        SystemExit: pip failed; its message is above.
    """
    home = PLACE / name / "venv"
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([find_python(environments.PYTHONS[name]), "-m", "venv", str(home)], check=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    if subprocess.run([python, *PIP, "install", "--quiet", *environments.packages(name)]).returncode:
        sys.exit(f"pip could not make the environment {name}.")
    return python


def versions(python: Path) -> dict[str, str]:
    """All packages of an environment."""
    listed = json.loads(subprocess.check_output([python, *PIP, "list", "--format=json"], text=True))
    return {canonicalize_name(each["name"]): each["version"] for each in listed}


def changes(before: dict[str, str], after: dict[str, str]) -> dict[str, list[str | None]]:
    """What the first cells added or replaced: versions before and after."""
    return {
        name: [before.get(name), after.get(name)]
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    }


def resolves(python: Path) -> str:
    """Whether what environment.yml lists is to be had: by conda, where there is one; else its pip part, by pip."""
    conda = next(filter(None, map(shutil.which, CONDAS)), None)
    if conda:
        command = [conda, "env", "create", "--dry-run", "--file", "environment.yml"]
    else:
        command = [python, *PIP, "install", "--dry-run", "--quiet", "--ignore-installed", "-r", "requirements.txt"]
    failed = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode
    return f"{'does not resolve' if failed else 'resolves'}, by {Path(conda).name if conda else 'pip, its pip part'}"


def look(name: str, notebooks: list[Path]) -> dict[str, object]:
    """Make an environment and run the notebooks in it; what was found."""
    python = make(name)
    before = versions(python)
    rows = {}
    for path in notebooks:
        key = site.name(path)
        found = lone.run(path, PLACE / name / "notebooks" / key, python)
        rows[key] = found.as_row()
        print(f"{name:8} {key:20} {json.dumps(rows[key])}", flush=True)
    after = versions(python)
    checked = subprocess.run([python, *PIP, "check"], capture_output=True, text=True).stdout.strip()
    wanted = {canonicalize_name(each.name) for each in environments.ranges()}
    return {
        "environment": name,
        "python": subprocess.check_output(
            [python, "-c", "import platform; print(platform.python_version())"], text=True
        ).strip(),
        "date": date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} used",
        "commit": subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip(),
        "versions": {each: after[each] for each in sorted(wanted & after.keys())},
        "changed": changes(before, after),
        "pip check": checked,
        "environment.yml": resolves(python),
        "notebooks": rows,
    }


def isolate() -> None:
    """What kernels inherit: the address of the course, and nothing that would lead them to this copy of it."""
    for name in ("PYTHONPATH", "COURSE_MODEL"):
        os.environ.pop(name, None)
    default_model_dir()  # fetched once, here; every environment finds it
    os.environ |= {"COURSE_REPO": str(ROOT), "COURSE_PROFILE": "cpu", "COURSE_CACHE": str(cache.cache_dir())}


def main() -> None:
    asked = [each for each in sys.argv[1:] if not each.endswith(".ipynb")]
    some = [Path(each).resolve() for each in sys.argv[1:] if each.endswith(".ipynb")]
    if unknown := [each for each in asked if each not in environments.PYTHONS]:
        sys.exit(f"There is no environment {unknown[0]!r}; choose from {', '.join(environments.PYTHONS)}.")
    isolate()
    for name in asked or environments.PYTHONS:
        found = look(name, some or [*files.notebooks(), files.workbooks("exercises")[0]])
        place = PLACE / name / "report.json" if some else environments.HERE / "reports" / f"{name}.json"
        write_whole(place, json.dumps(found, indent=1) + "\n")
        print(f"written: {place}")


if __name__ == "__main__":
    main()
