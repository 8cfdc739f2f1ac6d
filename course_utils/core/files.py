"""Where does the course lie, and how is a file written whole?"""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
ROOT = PACKAGE.parent  # the clone, or the folder that the package was installed into
RECIPE = "recipe.yaml"  # what a training leaves beside what it has trained: by what it was made


def in_clone() -> bool:
    """Whether the package lies in a clone, with the notebooks; or was installed from a wheel, which holds its data."""
    return not (PACKAGE / "data").is_dir()


def require_clone(command: str) -> None:
    """End a command that needs the notebooks where there are none.

    Raises:
        SystemExit: the package was installed from a wheel; the message says where the notebooks are.
    """
    if not in_clone():
        raise SystemExit(
            f"{command} needs the notebooks, and an installed package has none ({PACKAGE}). Clone the course's "
            "repository with git, and run the command there."
        )


def data_dir() -> Path:
    """The folder `data/`: beside the package in a clone, inside it when it was installed from a wheel."""
    return ROOT / "data" if in_clone() else PACKAGE / "data"


def lessons() -> list[Path]:
    """The lessons of the clone, in the order in which they are run."""
    return sorted((ROOT / "notebooks").glob("0*.ipynb"))


def notebooks() -> list[Path]:
    """All notebooks of the clone: the lessons, then their deeper halves."""
    return lessons() + sorted((ROOT / "notebooks" / "deeper").glob("0*.ipynb"))


def workbooks(*folders: str) -> list[Path]:
    """The exercises of the lessons, then their solutions, or those of one folder; they are written from a source."""
    return [
        path
        for folder in folders or ("exercises", "solutions")
        for path in sorted((ROOT / "notebooks" / folder).glob("0*.ipynb"))
    ]


def notebook(name: str) -> Path:
    """The notebook of that name ("01_lora").

    Raises:
        ValueError: there is none; names those there are.
    """
    there = {path.stem: path for path in notebooks()}
    if name not in there:
        raise ValueError(f"There is no notebook {name!r}; choose from {', '.join(there) or 'none (this is no clone)'}.")
    return there[name]


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: beside it first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    os.replace(partial, path)
