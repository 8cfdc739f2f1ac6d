"""The studies of formats and of QLoRA: what they look at, which arms are compared with which, and by which rule."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import get_peft_model

from course_utils import chat, datafiles, evaluation, training
from course_utils.studies import conversations, precisions, qlora, records
from course_utils.training import Recipe
from tests.conftest import tiny

FORMATS = {r.precision: r for r in precisions.STUDY.recipes}


@pytest.fixture
def small(monkeypatch):
    """Few texts, cut short, and a tiny model, so that a run takes seconds; returns the models that were prepared."""
    passages, trees = datafiles.load_passages, datafiles.load_conversations
    monkeypatch.setattr(datafiles, "load_passages", lambda: [text[:60] for text in passages()[:9]])
    monkeypatch.setattr(datafiles, "load_conversations", lambda split: trees(split=split)[:17])
    made = []

    def prepare_model(recipe: Recipe) -> torch.nn.Module:
        torch.manual_seed(recipe.seed)
        model = tiny(49152)
        model = model.bfloat16() if recipe.precision == "bf16" else model
        config = training.adapter_config(recipe)
        made.append(get_peft_model(model, config) if config else model)
        return made[-1]

    monkeypatch.setattr(training, "prepare_model", prepare_model)
    return made


def test_threads_are_those_of_the_recipe_in_all_three_splits(tokenizer):
    short = conversations.encoded(tokenizer, replace(qlora.LORA, max_length=100, train_on="all"))
    for split, examples in conversations.encoded(tokenizer, qlora.LORA).items():
        assert len(examples) == len(datafiles.load_conversations(split=split)), "none is longer than 320 tokens"
        fitting = [example["input_ids"] for example in examples if len(example["input_ids"]) <= 100]
        assert [example["input_ids"] for example in short[split]] == fitting
        assert all(example["labels"] == example["input_ids"] for example in short[split])


def test_every_text_has_its_loss_in_the_order_of_the_files(small, tokenizer):
    found = precisions.run(FORMATS["fp32"])
    texts = {
        "general": [chat.encode_text(text, tokenizer, 256) for text in datafiles.load_passages()],
        "heldout": conversations.encoded(tokenizer, FORMATS["fp32"])["test"],
    }
    for name, examples in texts.items():
        alone = [evaluation.nll(small[0], [example]) for example in examples]
        assert found[f"{name}_nats"] == pytest.approx([one.nats for one in alone], rel=1e-4)
        assert found[f"{name}_tokens"] == [one.tokens for one in alone]
        assert found[f"{name}_nll"] == pytest.approx(evaluation.nll(small[0], examples).mean, rel=1e-6)


def test_weights_stored_in_bf16_are_rounded_and_computed_with_in_fp32(small):
    found, exact = precisions.run(FORMATS["bf16"]), precisions.run(FORMATS["fp32"])
    rounded, weight = small[0].lm_head.weight, small[1].lm_head.weight
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, weight.bfloat16().float())
    assert found["general_nll"] == pytest.approx(exact["general_nll"], rel=1e-3)
    assert found["general_nats"] != exact["general_nats"]


def test_formats_are_those_of_the_course_each_once_and_quantized_ones_compute_in_fp32():
    assert set(FORMATS) == {"fp32", "bf16", "int8", "nf4", "nf4-dq", "fp4"}
    assert len(precisions.STUDY.recipes) == 6
    assert {r.compute_dtype for name, r in FORMATS.items() if name not in ("fp32", "bf16")} == {"fp32"}
    assert {r.method for r in FORMATS.values()} == {"base"}


def test_looks_are_at_20_and_40_steps_and_are_the_losses_of_that_moment(small, tokenizer, monkeypatch):
    recipe = replace(qlora.LORA, lr=1e-2, batch_size=2)
    found = qlora.run(recipe)
    assert (len(found["losses"]), len(found["validation_nll"]), len(found["test_nats"])) == (40, 2, 2)
    assert found["test_nll"][1] < found["test_nll"][0]
    test = conversations.encoded(tokenizer, recipe)["test"]
    assert found["test_nll"][1] == pytest.approx(evaluation.nll(small[0], test).mean, rel=1e-5)
    assert found["test_nats"][1] == pytest.approx(evaluation.nll_each(small[0], test)["nats"].tolist(), rel=1e-4)
    assert 0 < found["step_seconds"] < 10


def test_without_training_there_is_one_look(small):
    found = qlora.run(replace(qlora.LORA, adapter=None, steps=0))
    assert {name: len(value) for name, value in found.items()} == {"validation_nll": 1, "test_nll": 1, "test_nats": 1}


def test_a_look_takes_none_of_the_time_of_the_steps(monkeypatch):
    clock = iter([0.0, 1.0, 101.0, 103.0, 103.0])  # the look between the steps takes a hundred seconds
    monkeypatch.setattr(qlora.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(qlora._Watch, "look", lambda self: None)
    watch = qlora._Watch(None, {})
    watch.on_step(19, 0.0)
    watch.on_step(20, 0.0)
    assert watch.seconds == [1.0, 2.0]


def test_arms_are_paired_by_seed_and_ranked_ones_have_two_rates():
    trained = [recipe for recipe in qlora.STUDY.recipes if recipe.steps]
    rates = {}
    for recipe in trained:
        rates.setdefault(qlora.ARMS[recipe.method, recipe.precision], {}).setdefault(recipe.lr, []).append(recipe.seed)
    assert {arm: len(found) for arm, found in rates.items()} == {
        "full": 2, "LoRA": 2, "QLoRA": 2, "NF4 without DQ": 1, "FP4": 1,
    }  # fmt: skip
    assert all(seeds == [0, 1, 2, 3] for found in rates.values() for seeds in found.values())
    assert set(rates["FP4"]) == set(rates["NF4 without DQ"]) < set(rates["QLoRA"]) == set(rates["LoRA"])
    untrained = [recipe.precision for recipe in qlora.STUDY.recipes if not recipe.steps]
    assert untrained == ["fp32", "nf4-dq", "nf4", "fp4"]
    changed = {"adapter", "precision", "compute_dtype", "lr", "seed"}
    alike = [{name: value for name, value in asdict(recipe).items() if name not in changed} for recipe in trained]
    assert all(one == alike[0] for one in alike), "arms differ in nothing else"


def made_looks(**test: float) -> pd.DataFrame:
    """Looks at four seeds of each arm, at two rates; the lower rate of an arm has the better validation loss."""
    rows = [{"arm": "untrained", "precision": "fp32", "lr": 1e-3, "step": 0, "seed": 0, "test_nll": 4.0}]
    for arm, loss in ({"LoRA": 3.0} | test).items():
        for lr, better in ((3e-4, 0.0), (1e-3, 0.5)):
            for seed in range(4):
                scores = {"validation_nll": 2.0 + better, "test_nll": loss + seed + better + 0.01 * (seed % 2)}
                rows += [{"arm": arm, "precision": "any", "lr": lr, "step": 20, "seed": seed, "test_nll": 9.0}]
                rows += [{"arm": arm, "precision": "any", "lr": lr, "step": 40, "seed": seed, **scores}]
    return pd.DataFrame(rows)


def test_the_margin_is_a_tenth_of_what_lora_saves_at_the_rate_that_validation_chooses():
    rows = made_looks()
    mean = np.mean([3.0, 4.01, 5.0, 6.01])
    assert set(qlora.last_looks(rows, "LoRA")["lr"]) == {3e-4}
    assert qlora.margin(rows) == pytest.approx(0.1 * (4.0 - mean))
    with pytest.raises(ValueError, match="No runs of 'FP4'; there are: LoRA at 0.0003"):
        qlora.last_looks(rows, "FP4")


def test_arms_are_compared_seed_by_seed_at_their_own_rates_or_at_one():
    rows = made_looks(QLoRA=3.02)
    rows.loc[(rows["arm"] == "QLoRA") & (rows["lr"] == 1e-3), "validation_nll"] = 1.0
    own, same = qlora.compared(rows, "QLoRA", "LoRA"), qlora.compared(rows, "QLoRA", "LoRA", lr=3e-4)
    assert own["difference"] == pytest.approx(0.52), "the seeds differ by whole nats, the pairs do not"
    assert same["difference"] == pytest.approx(0.02)
    assert own["half"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("difference", "half", "said"),
    [
        (0.0, 0.04, "equal"),
        (0.02, 0.02, "equal"),
        (-0.04, 0.02, "not worse"),
        (-0.2, 0.1, "not worse"),
        (0.04, 0.02, "not decided"),
        (0.0, 0.06, "not decided"),
        (0.08, 0.02, "worse"),
    ],
)
def test_the_words_are_those_of_the_rule(difference, half, said):
    assert qlora.words(difference, half, margin=0.05) == said


def test_looks_have_a_row_for_each_look_and_the_arm_of_their_recipe(monkeypatch):
    recipes = [replace(qlora.LORA, adapter=None, steps=0), qlora.QLORA]
    scores = [{"validation_nll": [4.0], "test_nll": [5.0], "test_nats": [[1.0]]}]
    scores += [{"validation_nll": [3.0, 2.0], "test_nll": [4.0, 3.0], "test_nats": [[1.0], [2.0]]}]
    runs = [records._row({"recipe": asdict(recipe), **score}) for recipe, score in zip(recipes, scores, strict=True)]
    monkeypatch.setattr(records, "table", lambda name: pd.DataFrame(runs))
    rows = qlora.looks()
    assert rows["arm"].tolist() == ["untrained", "QLoRA", "QLoRA"]
    assert rows["step"].tolist() == [0, 20, 40]
    assert rows["test_nll"].tolist() == [5.0, 4.0, 3.0]


@pytest.mark.slow
def test_a_run_of_qlora_is_on_packed_weights(monkeypatch):
    """The real model, one step, one look at two threads."""
    trees = datafiles.load_conversations
    monkeypatch.setattr(datafiles, "load_conversations", lambda split: trees(split=split)[:2])
    monkeypatch.setitem(qlora.SCORING, "looks", [1])
    prepare, made = training.prepare_model, []
    monkeypatch.setattr(training, "prepare_model", lambda recipe: made.append(prepare(recipe)) or made[-1])
    found = qlora.run(replace(qlora.QLORA, steps=1, batch_size=2))
    layers = [module for module in made[0].modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 210
    assert all(layer.weight.quant_state.nested and layer.compute_dtype == torch.float32 for layer in layers)
    assert len(found["test_nats"][0]) == 2
