"""The public address: written in one place, and taken from there by everything that names it."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from course_utils.core import files
from course_utils.core.files import ROOT
from course_utils.course import marks, publish

HUB = "https://github.com/owner/name"
EVERY = [*files.notebooks(), *files.workbooks()]


@pytest.fixture
def copy(tmp_path) -> Path:
    """All that `make publish` writes to."""
    for name in ("pyproject.toml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def sources(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def outputs(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return json.dumps([cell.get("outputs") for cell in cells])


def defaults(path: Path) -> list[str]:
    return [
        found for source in sources(path) for found in re.findall(r'os\.environ\.get\("COURSE_REPO"(.*?)\)', source)
    ]


@pytest.mark.parametrize("path", EVERY, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_first_cells_have_the_address_of_pyproject_and_before_that_none(path):
    address = publish.address()
    assert defaults(path) == [f', "{address}"' if address else ""]


def test_the_readme_says_what_is_true_today():
    said = marks.between(ROOT / "README.md", "hosted")
    assert said == publish.hosted(publish.address()), "write it again with `make docs`"


def test_one_command_writes_the_address_everywhere_and_no_output_changes(copy):
    publish.publish(f"{HUB}.git/", copy)
    assert tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"] == {
        "Repository": HUB
    }
    assert yaml.safe_load((copy / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"] == HUB
    for path in EVERY:
        written = copy / path.relative_to(ROOT)
        assert defaults(written) == [f', "{HUB}"'], path.name
        assert outputs(written) == outputs(path), path.name
        assert "set the environment variable `COURSE_REPO`" not in "".join(sources(written)), path.name


def test_a_second_address_replaces_the_first(copy):
    publish.publish("https://example.org/group/old", copy)
    first = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    publish.publish(HUB, copy)
    publish.publish("https://example.org/group/old", copy)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == first


def test_every_notebook_for_learners_has_its_badges_and_the_readme_stays_short(copy):
    publish.publish(HUB, copy)
    text = (copy / "README.md").read_text(encoding="utf-8")
    for path in [*files.notebooks(), *files.workbooks("exercises")]:
        place = f"owner/name/blob/main/{path.relative_to(ROOT).as_posix()})"
        assert f"](https://colab.research.google.com/github/{place}" in text
        assert f"](https://kaggle.com/kernels/welcome?src=https://github.com/{place}" in text
    assert len(re.findall(r"!\[(Colab|Kaggle)\]", text)) == 2 * len([*files.notebooks(), *files.workbooks("exercises")])
    assert "<git address>" not in text
    assert sum(any(map(str.isalnum, word)) for word in text.split()) <= 1300


def test_elsewhere_than_on_github_there_are_no_badges(copy):
    publish.publish("https://example.org/group/name", copy)
    text = (copy / "README.md").read_text(encoding="utf-8")
    assert "colab.research" not in text
    assert "<git address>" not in text


@pytest.mark.parametrize(
    "repo",
    [
        "",
        "owner/name",
        "git@github.com:owner/name",
        "http://github.com/owner/name",
        "https://github.com",
        "https://github.com/owner",
        "https://github.com/owner/..",
        f"{HUB}/tree/main",
        f"{HUB}/blob/main/README.md",
        f"{HUB}?tab=readme",
        "https://gitlab.com/group/name/-/tree/main",
        'https://a/b/"c',
    ],
)
def test_what_is_no_public_address_is_refused_and_nothing_written(copy, repo):
    with pytest.raises(publish.AddressError, match="REPO is .*https://github.com/owner/name"):
        publish.publish(repo, copy)
    assert (copy / "pyproject.toml").read_bytes() == (ROOT / "pyproject.toml").read_bytes()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        (f" {HUB}.git/ ", HUB),
        ("https://www.GitHub.com/owner/name", HUB),
        ("https://git.sr.ht/~user/n", "https://git.sr.ht/~user/n"),
        ("https://git.example.org:8443/group/sub/n", "https://git.example.org:8443/group/sub/n"),
    ],
)
def test_an_address_is_what_git_needs_of_it(given, address):
    assert publish.normalized(given) == address


def test_other_addresses_of_the_project_stay(copy):
    path = copy / "pyproject.toml"
    urls = '[project.urls]\nDocumentation = "https://example.org/docs"\n\n[project.optional-dependencies]\n'
    text = path.read_text(encoding="utf-8").replace("[project.optional-dependencies]\n", urls)
    path.write_text(text, encoding="utf-8")
    for address in ("https://example.org/group/old", HUB):
        publish.publish(address, copy)
    found = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["urls"]
    assert found == {"Documentation": "https://example.org/docs", "Repository": HUB}


def test_an_address_that_a_formatter_has_put_on_a_line_of_its_own_is_replaced(copy):
    path = copy / "notebooks" / "01_lora.ipynb"
    text = path.read_text(encoding="utf-8")
    split = text.replace(r"get(\"COURSE_REPO\")", r"get(\n        \"COURSE_REPO\", \"https://old.org/a/b\"\n    )")
    assert split != text
    path.write_text(split, encoding="utf-8")
    publish.publish(HUB, copy)
    assert defaults(path) == [f', "{HUB}"']


def no_json(copy: Path) -> None:
    (copy / "notebooks" / "03_qlora.ipynb").write_text("<<<<<<< HEAD\n", encoding="utf-8")


def no_mark(copy: Path) -> None:
    (copy / "README.md").write_text("# x\n", encoding="utf-8")


def no_default(copy: Path) -> None:
    path = copy / "notebooks" / "01_lora.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("COURSE_REPO", "COURSE"), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "named"), [(no_json, "03_qlora.ipynb"), (no_mark, "README.md"), (no_default, "01_lora.ipynb")]
)
def test_where_a_file_has_no_place_for_it_nothing_is_written(copy, spoil, named):
    spoil(copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(publish.AddressError, match=f"Nothing was written: {named}"):
        publish.publish(HUB, copy)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
