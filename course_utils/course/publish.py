"""Where is the course public? The address stands in pyproject.toml; first cells, README, CITATION take it from there.

`make publish REPO=https://github.com/owner/name` writes it everywhere. Until then the first cell of a lone notebook
says what to set, and the README has no badges.
"""

import re
import tomllib
from pathlib import Path

import nbformat

from course_utils.core import files
from course_utils.core.files import ROOT, write_whole
from course_utils.course import marks

ADDRESS = re.compile(r"https://[\w.-]+(?:/[\w.-]+){2,}")
DEFAULT = re.compile(r'os\.environ\.get\("COURSE_REPO"(?:, "[^"]*")?\)')
ASKS = "set the environment variable `COURSE_REPO` to the address of the course's git repository and the cell brings it"
BRINGS = "the cell brings it"
HOSTS = {  # name, picture, and what the path of a notebook on GitHub follows
    "Colab": ("https://colab.research.google.com/assets/colab-badge.svg", "https://colab.research.google.com/github"),
    "Kaggle": (
        "https://kaggle.com/static/images/open-in-kaggle.svg",
        "https://kaggle.com/kernels/welcome?src=https://github.com",
    ),
}
GITHUB, BRANCH = "https://github.com/", "main"
SET = (
    " and set the address of this repository in a cell above the first one: "
    '`import os; os.environ["COURSE_REPO"] = "<git address>"`'
)
TEXT = (
    "**On Colab or Kaggle** (with Internet switched on): open one notebook alone{how}. The first cell fetches the "
    "course, installs what is missing (not Lit-GPT), and leaves torch, numpy, pandas and the other packages that the "
    "host runs on as they are. If it asks for a restart of the kernel, restart and run from the top.\n"
)


class AddressError(ValueError):
    """What was given is no public address of a git repository."""


def address(root: Path = ROOT) -> str | None:
    """The public address of the repository; None as long as nobody has published it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def publish(repo: str, root: Path = ROOT) -> None:
    """Write the public address where it is kept, and into all that takes it from there. No notebook is run.

    Raises:
        AddressError: it is no address that git can fetch for everybody.
    """
    repo = repo.strip().rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(repo):
        raise AddressError(
            f"REPO is {repo!r}; give the https address of the repository: https://github.com/owner/name."
        )
    path = root / "pyproject.toml"
    text = re.sub(r'\[project\.urls\]\nRepository = "[^"]*"\n\n', "", path.read_text(encoding="utf-8"))
    before, mark, after = text.partition("[project.optional-dependencies]\n")
    write_whole(path, f'{before}[project.urls]\nRepository = "{repo}"\n\n{mark}{after}')
    cited = root / "CITATION.cff"
    lines = [line for line in cited.read_text(encoding="utf-8").splitlines() if not line.startswith("repository-code")]
    write_whole(cited, "\n".join([*lines, f'repository-code: "{repo}"']) + "\n")
    for path in [*files.notebooks(), *files.workbooks()]:
        path = root / path.relative_to(ROOT)
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.source = taken(cell.source, repo)
        write_whole(path, nbformat.writes(notebook) + "\n")
    write_readme(root)


def taken(source: str, repo: str) -> str:
    """The source of a cell, with the address for its default."""
    return DEFAULT.sub(f'os.environ.get("COURSE_REPO", "{repo}")', source).replace(ASKS, BRINGS)


def write_readme(root: Path = ROOT) -> None:
    """Put the part on hosted notebooks between its marks."""
    marks.put_between(root / "README.md", "hosted", hosted(address(root)))


def hosted(repo: str | None) -> str:
    """What the README says of Colab and Kaggle: what to set; or, once it is published, a badge for each notebook."""
    if repo is None:
        return TEXT.format(how=SET)
    if not repo.startswith(GITHUB):
        return TEXT.format(how="")
    rows = [f"| {path.stem} | {badges(repo, path)} |" for path in [*files.notebooks(), *files.workbooks("exercises")]]
    return TEXT.format(how="") + "\n" + "\n".join(["| notebook | open |", "|---|---|", *rows]) + "\n"


def badges(repo: str, path: Path) -> str:
    """Links that open a notebook of a repository on GitHub."""
    place = f"{repo.removeprefix(GITHUB)}/blob/{BRANCH}/{path.relative_to(ROOT).as_posix()}"
    return " ".join(f"[![{host}]({picture})]({start}/{place})" for host, (picture, start) in HOSTS.items())
