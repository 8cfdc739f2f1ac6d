"""What others look for in a repository: how to cite it, and workflows, which cannot run here and so are read."""

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml

from course_utils.core.files import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def workflow(name: str) -> dict:
    """A workflow; YAML 1.1 reads its key `on` as true."""
    return yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))


def steps(name: str) -> list[dict]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def commands(name: str) -> str:
    return "\n".join(step.get("run", "") for step in steps(name))


def checked(schema: str, path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def linted(*paths: Path) -> subprocess.CompletedProcess:
    command = [Path(sysconfig.get_path("scripts")) / "zizmor", "--offline", "--no-progress", *paths]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("schema", "path"),
    [("citation-file-format", ROOT / "CITATION.cff"), *(("github-workflows", path) for path in WORKFLOWS)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_files_have_the_shape_that_others_read(schema, path, tmp_path):
    done = checked(schema, path)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / path.name
    broken.write_text(path.read_text(encoding="utf-8") + "\nunknown-key: 1\n", encoding="utf-8")
    assert checked(schema, broken).returncode, "the schema sees what is wrong"


def test_workflows_have_nothing_that_a_linter_warns_of(tmp_path):
    done = linted(*WORKFLOWS)
    assert done.returncode == 0, done.stdout
    careless = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    (tmp_path / "test.yml").write_text(careless.replace("contents: read", "contents: write"), encoding="utf-8")
    assert linted(tmp_path / "test.yml").returncode, "the linter sees what is wrong"


def test_each_change_runs_make_test_and_a_run_of_the_week_blocks_nothing():
    assert {"push", "pull_request"} <= set(workflow("test")[True])
    assert re.search(r"^make test\b", commands("test"), re.MULTILINE)
    assert set(workflow("newest")[True]) == {"schedule", "workflow_dispatch"}, "started by no change"
    assert [path.stem for path in WORKFLOWS] == ["newest", "test"]


def test_workflows_call_what_is_there():
    called = re.findall(r"\bmake ([a-z-]+)", "\n".join(commands(path.stem) for path in WORKFLOWS))
    assert set(called) <= TARGETS
    for extra in re.findall(r"\.\[(.+?)\]", commands("newest")):
        assert set(extra.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_week_takes_ranges_and_each_change_takes_the_pins():
    assert "-r requirements.txt" not in commands("newest")
    assert "--upgrade-strategy eager" in commands("newest")
    assert "pip install" not in commands("test"), "make installs, as it does for everybody"


def test_pythons_that_the_course_names_are_run():
    named = [step["with"]["python-version"] for step in steps("test") if "python-version" in step.get("with", {})]
    matrix = workflow("test")["jobs"]["units"]["strategy"]["matrix"]["python"]
    assert [named[0], *matrix] == ["3.11", "3.12", "3.13"]


def test_the_report_is_written_whatever_came_before():
    (report,) = [step for step in steps("newest") if step.get("name") == "report"]
    assert report["if"] == "always()"
    assert "$GITHUB_STEP_SUMMARY" in report["run"]


def test_the_citation_says_what_the_package_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    title = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[0]
    assert title == f"# {cited['title']}"
