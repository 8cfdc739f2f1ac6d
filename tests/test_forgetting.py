"""The study of forgetting: what it looks at, when, and that its numbers are those of the model at that moment."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from course_utils import chat, datafiles, evaluation, intervals, loading, training
from course_utils.studies import forgetting, ranks
from course_utils.training import LORA
from tests.conftest import tiny

FULL = replace(forgetting.DATES, adapter=None, lr=1e-4)


@pytest.fixture
def small(monkeypatch):
    """Few rows and a tiny model, so that a run takes seconds."""
    load, passages = datafiles.load_task, datafiles.load_passages
    monkeypatch.setattr(datafiles, "load_task", lambda name, split: load(name, split)[:12])
    monkeypatch.setattr(datafiles, "load_passages", lambda: [text[:60] for text in passages()])
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: tiny(49152))


def test_scores_are_lists_over_the_checkpoints_and_learning_is_seen(small):
    recipe = replace(FULL, lr=1e-2, steps=10)
    found = forgetting.run(recipe)
    assert len(found["losses"]) == 10
    once = {"losses", "tokens"} | {name for name in found if name.endswith("_after_rehearsal")}
    assert {len(value) for name, value in found.items() if name not in once} == {2}, "at 5 and 10 steps"
    assert found["test_nll"][1] < found["test_nll"][0]
    assert 0 < found["update_norm"][0] < found["update_norm"][1]
    assert all(kl > 0 for kl in found["general_kl"])
    assert [len(kinds) for kinds in found["general_nll_by_kind"]] == [6, 6]


def test_without_training_nothing_has_moved_and_the_shots_are_scored(small):
    found = forgetting.run(replace(forgetting.DATES, steps=0))
    assert found["update_norm"] == [0.0]
    assert found["general_kl"] == [pytest.approx(0.0, abs=1e-5)]
    assert found["test_same"] == [1.0]
    assert "few_shot_accuracy" in found
    assert found["update_norm_after_rehearsal"] > 0, "the rehearsal trains what the recipe trains"


def test_rehearsed_passages_are_not_those_that_forgetting_is_measured_on(small, tokenizer):
    model = training.prepare_model(FULL)
    rows = {split: datafiles.load_task("dates", split) for split in datafiles.SPLITS}
    probe = forgetting.Probe(model, tokenizer, FULL, rows)
    measured = [example["input_ids"] for example in probe.before["general"].examples]
    assert (len(probe.rehearsed), len(measured)) == (10, 50)
    assert not [example for example in probe.rehearsed if example["input_ids"] in measured]
    assert sorted(set(probe.kinds)) == sorted(set(datafiles.load_passage_kinds()))
    everything = [chat.encode_text(text, tokenizer, 256)["input_ids"] for text in datafiles.load_passages()]
    for kind, ids in zip(probe.kinds, measured, strict=True):
        assert datafiles.load_passage_kinds()[everything.index(ids)] == kind
    probe.look()
    assert probe.seen["general_nll"][0] == pytest.approx(
        evaluation.nll(model, probe.before["general"].examples).mean, rel=1e-4
    )


def test_the_norm_is_that_of_what_was_added_whatever_is_trained(small, tokenizer):
    """LoRA's against the merged model; full fine-tuning's without head and norms."""
    rows = {split: datafiles.load_task("dates", split) for split in datafiles.SPLITS}
    for recipe in (replace(forgetting.DATES, adapter={**LORA, "r": 4}), FULL):
        model = training.prepare_model(recipe)
        probe = forgetting.Probe(model, tokenizer, recipe, rows)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        norm = probe.update_norm()
        merged = model.merge_and_unload() if recipe.adapter else model
        start = {name.replace("base_model.model.", "").replace(".base_layer", ""): p for name, p in before.items()}
        squares = [
            (p - start[name]).square().sum().item()
            for name, p in merged.named_parameters()
            if name.endswith("_proj.weight")
        ]
        assert len(squares) == 14
        assert norm == pytest.approx(sum(squares) ** 0.5, rel=1e-4)


def test_arms_are_paired_and_checkpoints_are_those_of_their_task():
    recipes = [recipe for recipe in forgetting.STUDY.recipes if recipe.steps]
    arms = {}
    for recipe in recipes:
        arms.setdefault(str(replace(recipe, seed=0)), set()).add(recipe.seed)
    assert len(arms) == 15
    assert all(seeds == {0, 1, 2} for seeds in arms.values())
    for recipe in recipes:
        assert forgetting.SCORING["checkpoints"][recipe.data][-1] == recipe.steps


def test_looks_have_a_row_for_each_checkpoint_and_forgetting_is_what_the_loss_rose_by():
    lines = [line for line in forgetting.STUDY.done() if line["recipe"]["steps"]]
    looks = forgetting.looks()
    assert len(looks) == sum(len(line["accuracy"]) for line in lines)
    untrained = next(line for line in forgetting.STUDY.done() if not line["recipe"]["steps"])
    for number, line in enumerate(lines):
        rows = looks[looks["run"] == number]
        assert rows["step"].tolist() == forgetting.SCORING["checkpoints"][line["recipe"]["data"]]
        assert rows["answer_nll"].tolist() == line["test_nll"]
        rise = [nll - untrained["general_nll"][0] for nll in line["general_nll"]]
        assert rows["forgetting"].tolist() == pytest.approx(rise)
        assert (rows["forgetting_after_rehearsal"] + untrained["general_nll"][0]).tolist() == pytest.approx(
            [line["general_nll_after_rehearsal"]] * len(rows)
        )
        poetry = [kinds[-1] - untrained["general_nll_by_kind"][0][-1] for kinds in line["general_nll_by_kind"]]
        assert rows["on_poetry"].tolist() == pytest.approx(poetry), "the kinds are in the order of their names"


def test_ranks_are_those_of_the_study_at_its_two_rates_and_seeds():
    ours = {str(replace(recipe, adapter={**LORA, "r": 16})) for recipe in ranks.STUDY.recipes}
    arms = [recipe for recipe in forgetting.STUDY.recipes if recipe.data == "addition" and recipe.adapter]
    assert len(ranks.STUDY.recipes) == 2 * len(ours) == 12
    assert ours == {str(recipe) for recipe in arms if recipe.steps}


def steady(data: str) -> pd.DataFrame:
    """The looks that lesson 01 compares on a task: r = 16 or all weights, at a constant rate."""
    return forgetting.looks().query(
        "data == @data and schedule == 'constant' and trainable.isna() and r not in (1, 64)"
    )


def test_lesson_01_names_the_rates_that_validation_chooses_with_every_seed():
    """A factor of 33 in the study, beside the one of [L19]; and what 200 questions leave open (Wilson, for 150)."""
    ends = steady("dates").query("step == 80")
    for method, rate in {"lora": 1e-3, "full": 3e-5}.items():
        runs = ends[ends["method"] == method]
        for _, of_a_seed in runs.groupby("seed"):
            assert of_a_seed.set_index("lr")["validation_nll"].idxmin() == rate
    _, low, high = intervals.share_and_interval(150, 200)
    assert 0.055 < (high - low) / 2 < 0.065


@pytest.mark.parametrize(("data", "levels"), [("dates", 11), ("addition", 6)])
def test_full_fine_tuning_forgot_less_at_every_level_counted_in_the_first_way_too(data, levels):
    """By level of accuracy, an interval for each method, as the rule of [F4] first had it; lesson 01 says so."""
    looks = steady(data)
    looks = looks.assign(point=looks["lr"].astype(str) + " " + looks["step"].astype(str))
    points = {m: intervals.summarize(arm, "point", "accuracy", "forgetting") for m, arm in looks.groupby("method")}
    won = []
    for level in (k / 20 for k in range(10, 21)):
        reached = {m: table[table["accuracy"] >= level - 1e-4] for m, table in points.items()}
        if all(len(table) for table in reached.values()):
            lora, full = (reached[m].sort_values("forgetting").iloc[0] for m in ("lora", "full"))
            won.append(intervals.clearly_less("forgetting", full, lora))
    assert won == [True] * levels
