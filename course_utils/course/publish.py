"""Where is the course public? The address stands in pyproject.toml; first cells, README, CITATION take it from there.

`make publish REPO=https://github.com/owner/name` writes it everywhere. Until then the first cell of a lone notebook
says what to set, and the README has no badges.
"""

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from nbformat.reader import NotJSONError

from course_utils.core import files
from course_utils.core.files import ROOT, write_whole
from course_utils.course import marks
from course_utils.course.site import name

DEFAULT = re.compile(r'os\.environ\.get\(\s*"COURSE_REPO"(?:,\s*"[^"]*")?,?\s*\)')
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
    """What was given is no public address of a git repository, or there is no place for it."""


def address(root: Path = ROOT) -> str | None:
    """The public address of the repository; None as long as nobody has published it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def publish(repo: str, root: Path = ROOT) -> None:
    """Write the public address where it is kept, and into all that takes it from there. No notebook is run.

    Raises:
        AddressError: it is no address that git can fetch for everybody, or a file has no place for it; nothing is
            written then.
    """
    repo = normalized(repo)
    try:
        texts = {
            root / "pyproject.toml": _project(root / "pyproject.toml", repo),
            root / "CITATION.cff": _citation(root / "CITATION.cff", repo),
            root / "README.md": marks.replaced(root / "README.md", "hosted", hosted(repo)),
        }
        for path in [*files.notebooks(), *files.workbooks()]:
            path = root / path.relative_to(ROOT)
            texts[path] = _notebook(path, repo)
    except (OSError, ValueError) as error:  # no JSON, no TOML, no mark
        raise AddressError(f"Nothing was written: {error}") from error
    for path, text in texts.items():
        write_whole(path, text)


def normalized(repo: str) -> str:
    """The address without what git does not need.

    Raises:
        AddressError: git cannot fetch it for everybody: it is no https address, or one of a page within a repository.
    """
    given, parts = repo, urlsplit(repo.strip().rstrip("/").removesuffix(".git"))
    host, path = parts.netloc.lower().removeprefix("www."), parts.path
    inside = path.removeprefix("/").split("/")
    whole = re.fullmatch(r"[\w.-]+(:\d+)?", host) and all(re.fullmatch(r"~?[\w.-]*\w[\w.-]*", each) for each in inside)
    count = len(inside) == 2 if host == "github.com" else len(inside) >= 2
    if parts.scheme != "https" or not whole or not count or parts.query or parts.fragment or "-" in inside:
        raise AddressError(
            f"REPO is {given!r}; give the https address of the repository: https://github.com/owner/name."
        )
    return f"https://{host}{path}"


def _project(path: Path, repo: str) -> str:
    """pyproject.toml with the address, beside other addresses that it has."""
    text, line = path.read_text(encoding="utf-8"), f'Repository = "{repo}"\n'
    if "[project.urls]\n" not in text:
        text = text.replace("[project.optional-dependencies]\n", "[project.urls]\n\n[project.optional-dependencies]\n")
    before, mark, after = text.partition("[project.urls]\n")
    text = before + mark + line + re.sub(r'^Repository = ".*"\n', "", after, count=1, flags=re.MULTILINE)
    if tomllib.loads(text)["project"]["urls"]["Repository"] != repo:
        raise ValueError(f"{path.name} has no place for an address.")
    return text


def _citation(path: Path, repo: str) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("repository-code")]
    return "\n".join([*kept, f'repository-code: "{repo}"']) + "\n"


def _notebook(path: Path, repo: str) -> str:
    """A notebook with the address for the default of its first cell."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except NotJSONError as error:
        raise ValueError(f"{path.name} is no notebook: {str(error).splitlines()[0][:80]}") from error
    found = sum(len(DEFAULT.findall(cell.source)) for cell in notebook.cells)
    if found != 1:
        raise ValueError(f'{path.name} asks for os.environ.get("COURSE_REPO") {found} times, and not once.')
    for cell in notebook.cells:
        cell.source = DEFAULT.sub(f'os.environ.get("COURSE_REPO", "{repo}")', cell.source).replace(ASKS, BRINGS)
    return nbformat.writes(notebook) + "\n"


def write_readme(root: Path = ROOT) -> None:
    """Put the part on hosted notebooks between its marks."""
    marks.put_between(root / "README.md", "hosted", hosted(address(root)))


def hosted(repo: str | None) -> str:
    """What the README says of Colab and Kaggle: what to set; or, once it is published, a badge for each notebook."""
    if repo is None:
        return TEXT.format(how=SET)
    if not repo.startswith(GITHUB):
        return TEXT.format(how="")
    rows = [f"| {name(path)} | {badges(repo, path)} |" for path in [*files.notebooks(), *files.workbooks("exercises")]]
    return TEXT.format(how="") + "\n" + "\n".join(["| notebook | open |", "|---|---|", *rows]) + "\n"


def badges(repo: str, path: Path) -> str:
    """Links that open a notebook of a repository on GitHub."""
    place = f"{repo.removeprefix(GITHUB)}/blob/{BRANCH}/{path.relative_to(ROOT).as_posix()}"
    return " ".join(f"[![{host}]({picture})]({start}/{place})" for host, (picture, start) in HOSTS.items())
