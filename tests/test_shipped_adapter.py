"""The adapter that comes with the course: how long it trains, what is made of it, and is it as good as it says."""

import hashlib
import json
import re
from dataclasses import replace

import pytest
import torch
import yaml
from peft import PeftModel, get_peft_config, get_peft_model
from safetensors.torch import load_file

from course_utils import datafiles, evaluation, loading, training
from course_utils.core import files
from course_utils.course import adapter
from course_utils.loading import cache
from course_utils.studies import conversations, shipped
from course_utils.training import Recipe
from course_utils.training.card import loads
from tests.conftest import tiny

RECIPE = files.ROOT / "recipes" / "guanaco.yaml"
FOLDER = datafiles.shipped_adapter()


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ([3.0, 2.9, 2.8], None),
        ([3.0, 2.9, 2.9], None),
        ([3.0, 2.9, 2.9, 2.95], 50),
        ([3.0, 2.9, 2.95, 2.8, 2.9, 2.81], 100),
        ([3.0, 3.1, 3.2, 2.0], 25),
        ([], None),
    ],
)
def test_the_first_look_after_which_two_in_a_row_are_not_lower(losses, steps):
    assert shipped.chosen(losses) == steps


@pytest.fixture
def small(monkeypatch):
    """A few short conversations and a tiny model, with a look after each of its large steps."""
    trees = datafiles.load_conversations
    monkeypatch.setattr(datafiles, "load_conversations", lambda split: trees(split=split)[:12])
    monkeypatch.setitem(shipped.SCORING, "every", 1)
    made = []

    def prepare_model(recipe: Recipe) -> torch.nn.Module:
        assert recipe.adapter is None, "the trainer adds it"
        made.append(tiny(49152))
        return made[-1]

    monkeypatch.setattr(training, "prepare_model", prepare_model)
    return replace(shipped.LONGEST, max_length=80, batch_size=2, lr=0.3, steps=12)


def test_the_run_ends_where_the_rule_is_met_and_a_run_of_so_many_steps_leaves_what_was_looked_at(
    small, tokenizer, tmp_path
):
    found = shipped.run(small)
    steps = shipped.chosen(found["validation_nll"])
    assert steps is not None
    assert len(found["losses"]) == len(found["validation_nll"]) == steps + 2 < small.steps
    examples = conversations.encoded(tokenizer, small)
    trainer = training.sft_trainer(tiny(49152), tokenizer, examples["train"], tmp_path, replace(small, steps=steps))
    assert training.run(trainer).losses == pytest.approx(found["losses"][:steps], abs=1e-4)
    after = evaluation.nll(trainer.model, examples["validation"]).mean
    assert after == pytest.approx(found["validation_nll"][steps - 1], rel=1e-5)


def test_without_a_record_it_is_said_what_makes_one(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    (tmp_path / "conversations.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="`python -m course_utils.studies shipped` makes it"):
        shipped.steps()
    line = {**shipped.STUDY.identity(shipped.LONGEST), "seconds": 1, "peak_bytes": 1, "machine": "m"}
    shipped.STUDY.path.parent.mkdir()
    for losses, expected in (([3.0, 2.0, 2.5, 2.1], 50), ([3.0, 2.0], 400)):
        shipped.STUDY.path.write_text(json.dumps(line | {"validation_nll": losses}) + "\n", encoding="utf-8")
        assert shipped.steps() == expected


def test_the_committed_recipe_trains_as_long_as_the_record_says():
    assert training.read_recipe(RECIPE) == replace(shipped.LONGEST, steps=shipped.steps())


ADAPTER = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj", "down_proj"]}
SCORES = {"test_nll": 3.04567, "test_threads": 46, "stop_rate": 0.75, "questions": 16, "max_new_tokens": 64}


@pytest.fixture
def trained(tmp_path):
    """What a training leaves in its folder."""
    model = get_peft_model(tiny(), get_peft_config(dict(ADAPTER)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "trained")
    (tmp_path / "trained" / "README.md").write_text("---\nbase_model: tiny\n---\n# made\n", encoding="utf-8")
    (tmp_path / "trained" / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "trained" / "recipe.yaml").write_text("steps: 1\nlr: 1e-3\n", encoding="utf-8")
    return model, tmp_path / "trained"


def test_what_ships_is_rounded_to_16_bits_and_measured_as_it_lies_there(trained, tmp_path, monkeypatch):
    _, folder = trained
    monkeypatch.setattr(loading, "load_model", lambda **_: tiny())
    measured = []

    def scores(place):
        measured.append(load_file(place / "adapter_model.safetensors"))
        return dict(SCORES)

    monkeypatch.setattr(adapter, "scores", scores)
    adapter.ship(folder, tmp_path / "there")
    names = {path.name for path in (tmp_path / "there").iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "recipe.yaml", "scores.json"}
    before, after = (load_file(path / "adapter_model.safetensors") for path in (folder, tmp_path / "there"))
    assert set(before) == set(after)
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert all(torch.equal(after[name], value.bfloat16()) for name, value in before.items())
    assert all(torch.equal(measured[0][name], value) for name, value in after.items())
    loaded = PeftModel.from_pretrained(tiny(), tmp_path / "there")
    assert training.check_shipped(loaded, tmp_path / "there") == []
    assert {p.dtype for name, p in loaded.named_parameters() if "lora_" in name} == {torch.float32}


def test_the_card_says_what_was_measured_and_the_scores_lie_beside_it(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load_model", lambda **_: tiny())
    monkeypatch.setattr(adapter, "scores", lambda place: dict(SCORES))
    adapter.main([str(trained[1]), str(tmp_path / "there")])
    card = (tmp_path / "there" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nbase_model: tiny\n---\n# made\n")
    assert "3.046 nats per answer token on the 46 test conversations" in card
    assert "75% of its greedy answers to 16 test questions" in card
    stored = json.loads((tmp_path / "there" / "scores.json").read_text(encoding="utf-8"))
    assert stored == SCORES | {"rounded_to": "bf16", "sha256": sha256(tmp_path / "there"), "machine": stored["machine"]}


def sha256(folder) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_a_folder_without_an_adapter_does_not_ship(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load_model", lambda **_: tiny())
    with pytest.raises(SystemExit, match="nowhere.* is no folder"):
        adapter.main([str(tmp_path / "nowhere"), str(tmp_path / "there")])
    assert not (tmp_path / "there").exists()


def test_the_shipped_adapter_is_the_committed_recipe_s_and_small():
    """Whole, of this base, by this recipe, at most 10 MB, and the file that its scores were measured with."""
    recipe, card = training.read_recipe(RECIPE), (FOLDER / "README.md").read_text(encoding="utf-8")
    assert Recipe(**yaml.safe_load(re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1])) == recipe
    assert loads(recipe) in card
    assert training.read_recipe(FOLDER / "recipe.yaml") == recipe
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 10e6
    config = json.loads((FOLDER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == cache.PUBLIC_ID
    assert json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))["sha256"] == sha256(FOLDER)


def test_its_loss_on_the_validation_conversations_is_that_of_the_look_that_chose_it():
    (line,) = shipped.STUDY.done()
    look = line["validation_nll"][shipped.steps() // shipped.SCORING["every"] - 1]
    after = float(re.search(r"(\d+\.\d{3}) after it", (FOLDER / "README.md").read_text(encoding="utf-8"))[1])
    assert after == pytest.approx(look, abs=0.01)


@pytest.mark.slow
def test_the_shipped_adapter_is_as_good_as_it_says():
    """Measured again, within what other CPUs may round: 0.01 nats per token, and two answers of sixteen."""
    stated, found = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8")), adapter.scores(FOLDER)
    assert found["test_nll"] == pytest.approx(stated["test_nll"], abs=adapter.TOLERANCE)
    assert found["stop_rate"] == pytest.approx(stated["stop_rate"], abs=2 / found["questions"])
    assert {k: found[k] for k in ("test_threads", "questions")} == {k: stated[k] for k in ("test_threads", "questions")}
