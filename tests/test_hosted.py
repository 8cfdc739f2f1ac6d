"""Colab and Kaggle: what the first cell would install there, what it leaves alone, and what `make hosted` found."""

import nbformat
import pytest
from nbformat import v4
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from course_utils import bootstrap, claims
from course_utils.core import files
from course_utils.core.files import ROOT
from tests.hosted import __main__ as hosted
from tests.hosted import environments, lone

ALWAYS = {"bitsandbytes", "gguf", "lazy-loader", "peft", "transformers"}
SFT = {"datasets", "sacrebleu", "trl"}
INSTALLED = {  # exactly this, and in the lesson on SFT its packages as well
    "colab": ALWAYS,
    "kaggle": ALWAYS | {"safetensors"},
}
REPORTS = environments.reports()
RAN = {name: report for name, report in REPORTS.items() if report["notebooks"]}


@pytest.fixture(params=environments.IMAGES)
def image(request, monkeypatch) -> str:
    """The name of a hosted service, whose packages seem to be those that are installed."""
    there = environments.image(request.param)
    monkeypatch.setattr(bootstrap, "installed", lambda name: there.get(environments.canonicalize_name(name)))
    return request.param


@pytest.mark.parametrize("extras", [(), ("sft",)], ids=["01 to 03", "04"])
def test_the_first_cell_installs_exactly_what_is_missing_there(image, extras):
    missing = bootstrap.missing(bootstrap.requirements(*extras))
    assert {each.name for each in missing} == INSTALLED[image] | (SFT if extras else set())


def test_nothing_that_the_host_runs_on_is_replaced(image, monkeypatch):
    """None of it is too old, and pip gets the version of all of it as a constraint."""
    there, seen = environments.image(image), []

    def pip(command: list[str], **_: object) -> object:
        with open(command[command.index("--constraint") + 1], encoding="utf-8") as file:
            seen.extend(file.read().split())
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(bootstrap.subprocess, "run", pip)
    bootstrap.install(bootstrap.missing(bootstrap.requirements("sft")))
    protected = {environments.canonicalize_name(name) for name in bootstrap.KEPT}
    assert protected <= there.keys(), "the list says of everything that is protected which version is there"
    assert {environments.canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in seen} == {
        name: there[name] for name in protected
    }


def test_a_hosts_torchao_is_hidden_from_peft_and_its_python_is_one_of_the_courses(image, monkeypatch):
    monkeypatch.delitem(bootstrap.sys.modules, "torchao", raising=False)
    bootstrap.hide_old_torchao()
    assert bootstrap.sys.modules.pop("torchao", "absent") is None
    assert SpecifierSet(environments.PROJECT["requires-python"]).contains(environments.PYTHONS[image])


def test_the_images_have_the_versions_that_are_known_and_the_oldest_are_the_bounds():
    named = {
        name: {each: environments.image(name)[each] for each in ("numpy", "pandas")} for name in environments.IMAGES
    }
    assert named["kaggle"] == {"numpy": "2.0.2", "pandas": "2.2.2"}
    assert named["colab"] == {"numpy": "2.1.3", "pandas": "2.2.3"}
    assert "torch==2.10.0" in environments.packages("kaggle"), "a build with a label is not to be had everywhere"
    assert "torch==2.10.*" in environments.packages("lowest")
    assert "torch>=2.10" in environments.packages("newest")
    assert {line.partition("=")[0] for line in environments.packages("lowest")} >= {"trl", "ipykernel", "transformers"}


def exercise(text: str) -> nbformat.NotebookNode:
    cell = v4.new_code_cell("exercises.check(answer)", id="one-answer")
    cell.outputs = [v4.new_output("stream", name="stdout", text=text)]
    return v4.new_notebook(cells=[v4.new_code_cell("1 + 1"), cell])


def test_what_is_compared_are_verdicts_and_what_checks_say(monkeypatch):
    monkeypatch.setattr(claims, "_given", {})
    claims.verdict("L1", "logits equal within 1e-6", holds=True)
    cell = v4.new_code_cell("claims.verdicts()")
    cell.outputs = [v4.new_output("execute_result", data=claims.verdicts()._repr_mimebundle_())]
    assert lone.said(v4.new_notebook(cells=[cell])) == {"L1": claims._given["L1"].verdict}
    assert lone.said(exercise("Not attempted yet.\n")) == {"one-answer": "Not attempted yet."}
    assert lone.differences({"a": "true", "b": "true"}, {"a": "true", "b": "false"}) == {"b": ["true", "false"]}
    assert lone.differences({"a": "true"}, {}) == {"a": ["true", None]}


def note(*sources: str) -> nbformat.NotebookNode:
    return v4.new_notebook(cells=[v4.new_markdown_cell("# T"), *map(v4.new_code_cell, sources)])


ONCE = """
from pathlib import Path
if not Path("seen").exists():
    Path("seen").touch()
    raise RuntimeError("Restart the kernel")
"""


@pytest.mark.parametrize(
    ("source", "starts", "failed"),
    [
        ("print(1)", 1, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        (ONCE, 2, ""),
        ("raise RuntimeError('Restart the kernel (or not)')", 3, "RuntimeError: Restart the kernel (or not)"),
    ],
    ids=["ends", "fails", "asks once for a restart", "asks again and again"],
)
def test_a_notebook_runs_alone_and_again_where_it_asks_for_a_restart(tmp_path, source, starts, failed):
    nbformat.write(note(source), tmp_path / "a.ipynb")
    found = lone.run(tmp_path / "a.ipynb", tmp_path / "empty", hosted.Path(hosted.sys.executable))
    assert (found.starts, found.failed) == (starts, failed)
    assert ("failed" in found.as_row()) == bool(failed)


def test_what_first_cells_changed_is_told():
    assert hosted.changes({"a": "1", "b": "1"}, {"a": "1", "b": "2", "c": "3"}) == {"b": ["1", "2"], "c": [None, "3"]}


def test_a_python_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(hosted.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match=r"needs Python 3\.12: put it on the PATH as python3\.12"):
        hosted.find_python("3.12")


def known(notebook: str, versions: dict[str, str]) -> dict[str, str | None]:
    """The verdicts that are other ones there, and why: None stands for a claim that gets none."""
    if notebook != "02_peft":
        return {}
    found = dict.fromkeys(("F11", "F19", "F20", "F21", "F22", "F23"))  # first cells do not bring Lit-GPT
    if Version(versions["transformers"]) >= Version("5.24"):  # reads PEFT's virtual tokens for one token alone
        found["F14"] = "the code does otherwise"  # the notebook says of which versions
    return found


@pytest.mark.parametrize("name", RAN)
def test_no_verdict_differs_where_it_was_tried_but_those_that_are_known_to(name):
    for notebook, row in RAN[name]["notebooks"].items():
        assert "failed" not in row, notebook
        assert row["verdicts"], notebook
        different = {claim: here for claim, (_, here) in row.get("different", {}).items()}
        assert different == known(notebook, RAN[name]["versions"]), notebook
    assert RAN[name]["pip check"] == "No broken requirements found."
    assert RAN[name]["environment.yml"].startswith("resolves")


@pytest.mark.parametrize("name", sorted(RAN.keys() & set(environments.IMAGES)))
def test_nothing_protected_was_touched_where_it_was_tried(name):
    protected = {environments.canonicalize_name(each) for each in bootstrap.KEPT}
    assert not protected & RAN[name]["changed"].keys()
    assert INSTALLED[name] | SFT <= RAN[name]["changed"].keys()


def test_every_environment_was_tried_with_every_notebook():
    every = [*files.notebooks(), files.workbooks("exercises")[0]]
    names = {path.relative_to(ROOT / "notebooks").with_suffix("").as_posix() for path in every}
    assert {name: set(report["notebooks"]) for name, report in REPORTS.items()} == dict.fromkeys(
        environments.PYTHONS, names
    )
