"""Runs that are kept for a demo: put in place of a training, they leave what it left, and say that nobody trained."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from course_utils import training
from course_utils.core import files
from course_utils.datafiles.collection import named_file
from course_utils.training.kept import keep, kept
from tests import kept_runs
from tests.conftest import made_examples, tiny


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A tiny model before and after a run, and that run, kept as "short"."""
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    before = tiny()
    for name, parameter in before.named_parameters():
        parameter.requires_grad = "q_proj" in name
    after = copy.deepcopy(before)
    history = training.fit(after, made_examples(), training.Recipe(steps=3, batch_size=2, lr=1e-2))
    keep(after, history, "short")
    return before, after, history


def test_a_kept_run_leaves_what_the_training_left(run, capsys):
    before, after, history = run
    found = kept(before, "short")
    assert found == history
    assert "Loaded, not trained: 3 steps" in capsys.readouterr().err
    for (name, now), trained in zip(before.named_parameters(), after.parameters(), strict=True):
        expected = trained.to(torch.bfloat16).float() if "q_proj" in name else trained
        assert torch.equal(now, expected), name
        assert now.dtype == torch.float32
        assert now.requires_grad == trained.requires_grad


def test_another_model_is_refused_and_left_alone(run):
    other = tiny(hidden_size=16)
    weights = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="they are not the 21 of this model"):
        kept(other, "short")
    assert all(torch.equal(weights[name], now) for name, now in other.state_dict().items())


def test_a_run_that_was_not_kept_is_named_with_those_that_were(run):
    with pytest.raises(ValueError, match=r"Unknown kept run 'long'; choose from short\."):
        kept(run[0], "long")


@pytest.mark.parametrize("name", kept_runs.RUNS)
def test_each_kept_run_is_that_of_its_cell(name):
    """The cell still holds the training that a demo replaces, and the file is of bfloat16 and small."""
    assert kept_runs.source(name).count(kept_runs.RUNS[name].trains) == 1
    path = named_file("kept run", "kept", f"{name}.safetensors")
    assert path.stat().st_size < 10_000_000
    assert {weight.dtype for weight in load_file(path).values()} == {torch.bfloat16}


@pytest.mark.slow
@pytest.mark.parametrize("name", kept_runs.RUNS)
def test_in_a_demo_the_cells_behind_still_hold(name):
    """The three cells behind the loaded run find what they find in the lesson: no check of theirs is False."""
    run = kept_runs.RUNS[name]
    demo = kept_runs.source(name).replace(run.trains, run.demo(name))
    (first, *behind) = kept_runs.run_to(name, demo, behind=3)
    said = "".join(out.text for out in first.outputs if out.get("name") == "stderr")
    assert "Loaded, not trained" in said
    printed = "".join(out.text for cell in behind for out in cell.get("outputs", []) if out.get("name") == "stdout")
    assert "False" not in printed
    assert "True" in printed
