"""The model of a profile: fetched, or replaced by the default one, which is said."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch

from course_utils import loading, machine, memory
from course_utils.core import hub
from course_utils.core.files import ROOT, notebook
from course_utils.loading import cache, profiles

T4 = machine.PROFILES["t4"]


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU of so many GB, and a hub that gives everything or raises the error; returns what it was asked for."""
    asked = []
    (tmp_path / "model.safetensors").touch()

    def see(gigabytes: float, error: Exception | None = None, folder: Path = tmp_path) -> list[str]:
        def fetch(model: str, **_: object) -> str:
            asked.append(model)
            if error:
                raise error
            return str(folder)

        monkeypatch.delenv("COURSE_MODEL", raising=False)
        monkeypatch.setattr(machine, "device", lambda: "cuda")
        there = SimpleNamespace(total_memory=int(gigabytes * 1e9))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: there)
        monkeypatch.setattr(profiles, "snapshot_download", fetch)
        return asked

    return see


def test_the_model_of_the_profile_is_fetched(gpu, capsys):
    asked = gpu(15.8)
    assert loading.with_model(T4) == T4
    assert asked == [T4.model]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("gigabytes", "error", "words"),
    [
        (15.8, OSError("no network\nmore"), "the hub does not give it: no network"),
        (15.8, hub.HTTPError("peer closed connection"), "the connection broke .*peer closed connection"),
        (15.8, RuntimeError("Task error: CAS Client Error"), "the connection broke .*CAS Client Error"),
        (11, None, r"takes up to 15 GB, and the GPU has 11.0 GB"),
    ],
)
def test_the_default_model_takes_its_place_and_a_sentence_says_why(gpu, capsys, gigabytes, error, words):
    asked = gpu(gigabytes, error)
    assert loading.with_model(T4) == replace(T4, model=cache.NAME)
    said = capsys.readouterr().err
    assert re.fullmatch(rf"The profile 't4' has the model {T4.model}, but .*{words}.*{cache.NAME} takes .*\n", said)
    assert bool(asked) == bool(error), "what has no room is not fetched"


def test_a_cache_without_weights_is_no_model(gpu, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    gpu(15.8, folder=tmp_path / "empty")
    assert loading.with_model(T4).model == cache.NAME
    assert "no weights of it came" in capsys.readouterr().err


def test_an_error_that_is_not_the_hubs_is_not_hidden(gpu):
    gpu(15.8, RuntimeError("CUDA out of memory"))
    with pytest.raises(RuntimeError, match="CUDA"):
        loading.with_model(T4)


def test_a_profile_of_a_gpu_on_a_machine_without_one_goes_on_with_the_default_model(gpu, capsys, monkeypatch):
    asked = gpu(15.8)
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    assert loading.with_model(T4).model == cache.NAME
    assert "no GPU is in use here" in capsys.readouterr().err
    assert asked == []


def test_notebook_04_takes_its_model_that_way():
    cells = nbformat.read(notebook("04_guanaco_sft"), as_version=4).cells
    taken = [cell.source.count("profile = loading.with_model(machine.profile())") for cell in cells]
    assert sum(taken) == 1
    assert not [cell.source for cell in cells if "profile = machine.profile()" in cell.source]


def test_the_readme_says_how_much_the_largest_model_is_to_fetch():
    models = [profile.model for profile in machine.PROFILES.values() if profile.gpu_gb]
    sizes = [memory.plan(model.partition("/")[2].removesuffix("-Instruct")).costs.parameters for model in models]
    assert f"a model of up to {2 * max(sizes) / 1e9:.0f} GB" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_nothing_takes_the_place_of_what_the_user_named_and_the_default_needs_no_hub(gpu, monkeypatch):
    asked = gpu(1, OSError())
    assert loading.with_model(machine.PROFILES["cpu"]).model == cache.NAME
    monkeypatch.setenv("COURSE_MODEL", "own/model")
    assert loading.with_model(machine.profile("t4")).model == "own/model"
    assert asked == []
