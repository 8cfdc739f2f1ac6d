"""The site: its sources are whole, and Sphinx builds it without a warning, so that it opens and is searched offline."""

import ast
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from course_utils.core import files
from course_utils.core.files import ROOT
from course_utils.course import claims_page, rooms, site

EVERY = [*files.notebooks(), *files.workbooks()]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src"}  # and the stylesheets and fonts of `link`


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "source"
    site.write_sources(folder, {})
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The whole site, of the stored notebooks."""
    target = tmp_path_factory.mktemp("build") / "course"
    site.build(target, {})
    return target


class Page(HTMLParser):
    """What a page loads when it opens, the alt texts of its pictures, and its links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.alts: list[str | None] = []
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag in LOADED and found.get(LOADED[tag]):
            self.loads.append(found[LOADED[tag]])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon", "modulepreload"):
            self.loads.append(found["href"])
        if tag == "img":
            self.alts.append(found.get("alt"))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])


def test_every_notebook_has_a_name_and_a_page_of_its_own(sources):
    names = [site.name(path) for path in EVERY]
    assert len(set(names)) == len(names)
    assert {"01_lora", "deeper/01_why_lora", "exercises/01", "solutions/01"} <= set(names)
    for path in EVERY:
        assert (sources / path.relative_to(ROOT)).is_file()


def test_an_executed_copy_takes_the_place_of_the_stored_notebook(tmp_path):
    lesson, copy = files.lessons()[0], tmp_path / "copy.ipynb"
    notebook = nbformat.read(lesson, as_version=4)
    notebook.cells[1].source = "## Just run"
    nbformat.write(notebook, copy)
    site.write_sources(tmp_path / "source", {lesson: copy})
    shown = nbformat.read(tmp_path / "source" / lesson.relative_to(ROOT), as_version=4)
    assert shown.cells[1].source == "## Just run"


def test_pictures_keep_their_alt_text():
    cell = v4.new_code_cell("plot()")
    data, said = {"image/png": "aGk="}, [{"image/png": {"alt": "A rises."}}, {}, {"image/png": {"alt": "B falls."}}]
    cell.outputs = [v4.new_output("display_data", data=data, metadata=each) for each in said]
    plain = v4.new_code_cell("1")
    site.for_reading(v4.new_notebook(cells=[cell, plain]))
    assert cell.metadata["mystnb"] == {"image": {"alt": "A rises. B falls."}}
    assert not plain.metadata


def test_every_stored_picture_has_a_text_to_keep():
    without = [
        f"{path.name} {cell.id}"
        for path in EVERY
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {}) and not output.metadata.get("image/png", {}).get("alt")
    ]
    assert without == []


def test_the_table_says_what_each_notebook_says_of_itself(sources):
    lines = (sources / "generated" / "status.md").read_text(encoding="utf-8").splitlines()[2:]
    assert len(lines) == len(EVERY)
    for path, line in zip(EVERY, lines, strict=True):
        first = nbformat.read(path, as_version=4).cells[0].source
        time, memory = re.search(r"cached: (.+), peak memory (.+)\.\*", first).groups()
        given = claims_page.collect([path])
        assert f"]({path.relative_to(ROOT).as_posix()}) | {time} | {memory} |" in line
        assert line.endswith(f"| {len(given) or 'none'} |")


def test_a_notebook_that_was_not_run_is_in_the_table(tmp_path):
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Title\n\n*Measured on nothing yet.*")])
    row = site.status([(ROOT / "notebooks" / "a.ipynb", notebook)]).splitlines()[-1]
    assert row == "| [Title](notebooks/a.ipynb) | not measured | not measured | 1 | none |"


def test_every_room_but_the_staff_has_a_page(sources):
    pages = {path.stem for path in (sources / "api").iterdir()} - {"index"}
    doors = {room.removesuffix(".py").rstrip("/") for room, _ in rooms.rooms() if "/" not in room.rstrip("/")}
    assert pages == doors - {"core", "course"}


def test_no_docstring_of_a_property_has_a_colon_in_its_first_line():
    """What stands before it would be shown as the type."""
    found = [
        f"{path.name}: {node.name}"
        for path in files.PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and any("property" in ast.unparse(each) for each in node.decorator_list)
        if ": " in (ast.get_docstring(node) or "").partition("\n")[0]
    ]
    assert found == []


def test_a_warning_of_sphinx_ends_it(tmp_path, monkeypatch):
    done = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(site, "check", lambda: None)
    monkeypatch.setattr(site, "write_sources", lambda *_: None)
    monkeypatch.setattr(site.subprocess, "run", lambda *_: done)
    with pytest.raises(site.SiteError, match="not built without warnings"):
        site.build(tmp_path / "course", {})


@pytest.mark.slow
def test_the_site_opens_without_the_network_and_its_links_lead_somewhere(built):
    pages = sorted(built.rglob("*.html"))
    assert len(pages) > len(EVERY)
    for path in pages:
        page = Page(path)
        assert [each for each in page.loads if re.match(r"(https?:)?//", each)] == [], path
        assert [alt for alt in page.alts if not (alt or "").strip() or alt.endswith(".png")] == [], path
        for link in page.links:
            target = link.partition("#")[0].partition("?")[0]
            if target and not re.match(r"[a-z]+:", target):
                assert (path.parent / target).exists(), f"{path.name}: {link}"


def test_the_landing_page_says_of_its_picture_what_the_readme_says():
    readme, landing = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/index.md"))
    alt, caption = re.search(r"!\[(.+?)\]\(notebooks/\S+?\.png\)\n\n\*(.+)\*", readme).groups()
    assert f":alt: {alt}\n\n{caption}\n" in landing


@pytest.mark.slow
def test_the_landing_page_has_the_commands_the_picture_and_the_surprises(built):
    text = (built / "index.html").read_text(encoding="utf-8")
    shown = re.sub(r"<[^>]+>", "", text)
    assert "make course" in shown
    assert "make test" in shown
    assert "learning_against_forgetting.png" in text
    assert "a counterexample" in shown


@pytest.mark.slow
def test_what_is_searched_for_is_in_the_index_that_lies_beside_the_pages(built):
    index = (built / "searchindex.js").read_text(encoding="utf-8")
    assert re.search(r"\bnf4\b", index)
    options = (built / "_static" / "documentation_options.js").read_text(encoding="utf-8")
    assert "SHOW_SEARCH_SUMMARY: false" in options, "a page opened from a disk may not fetch the pages that are found"


@pytest.mark.slow
def test_pages_of_the_package_show_what_its_functions_say(built):
    text = re.sub(r"<[^>]+>", "", (built / "api" / "loading.html").read_text(encoding="utf-8"))
    assert "load_model" in text
    assert "A causal language model, in eval mode" in text


def test_what_is_missing_is_said_before_anything_runs(monkeypatch):
    site.check()
    monkeypatch.setattr(site, "find_spec", lambda package: package != "myst_nb")
    with pytest.raises(site.SiteError, match=r"needs myst_nb; `pip install -e '\.\[site\]'`"):
        site.check()
