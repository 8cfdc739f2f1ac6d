"""Lint, format, spelling and links of everything in the repository."""

import re
import subprocess
import sys

import nbformat
import pytest

from course_utils.core.files import ROOT, notebooks, workbooks


def tracked(*patterns: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check():
    run("ruff", "check", "--no-cache", ".")


def test_ruff_format():
    run("ruff", "format", "--no-cache", "--check", ".")


def test_spelling_is_american():
    run("codespell_lib", *tracked("*.py", "*.md", "*.yml", "*.toml", "Makefile"))
    paths = [*notebooks(), *workbooks()]
    prose = "\n".join(cell.source for path in paths for cell in nbformat.read(path, as_version=4).cells)
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "-"], input=prose, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def markdown() -> list[tuple[str, str]]:
    found = [(name, (ROOT / name).read_text(encoding="utf-8")) for name in tracked("*.md")]
    for name in tracked("*.ipynb"):
        cells = nbformat.read(ROOT / name, as_version=4).cells
        found.append((name, "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")))
    return found


@pytest.mark.parametrize(("name", "text"), markdown(), ids=lambda value: value if len(value) < 60 else "")
def test_links_inside_the_repository_lead_somewhere(name, text):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"
