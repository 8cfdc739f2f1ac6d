"""The scoreboard and the placements: their arms are fair, their sizes are the formulas', their scores true."""

from dataclasses import replace

import pytest
import torch
from peft import get_peft_config, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import chat, datafiles, evaluation, loading, memory, training
from course_utils.studies import methods, placement
from course_utils.studies.probe import Probe
from tests.conftest import tiny

LAYERS, HIDDEN, KEYS, MLP, VOCABULARY = 30, 576, 192, 1536, 49152  # of SmolLM2-135M
WIDTHS = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, KEYS), "v": (HIDDEN, KEYS), "o": (HIDDEN, HIDDEN)}
WIDTHS |= {"gate": (HIDDEN, MLP), "up": (HIDDEN, MLP), "down": (MLP, HIDDEN)}
LORA16 = LAYERS * 16 * sum(map(sum, WIDTHS.values()))
HIDDEN_ENCODER, VIRTUAL = 128, 20
SIZES = {
    "LoRA": LORA16,
    "DoRA": LORA16 + LAYERS * sum(wide for _, wide in WIDTHS.values()),
    "IA3": LAYERS * (2 * KEYS + MLP),
    "VeRA": LAYERS * (2 * 256 + HIDDEN + KEYS),
    "LN tuning": (2 * LAYERS + 1) * HIDDEN,
    "prompt tuning": VIRTUAL * HIDDEN,
    "P-tuning": VIRTUAL * HIDDEN
    + HIDDEN_ENCODER * (HIDDEN + 1)
    + HIDDEN_ENCODER * (HIDDEN_ENCODER + 1)
    + HIDDEN * (HIDDEN_ENCODER + 1),
    "prefix tuning": VIRTUAL * 2 * LAYERS * KEYS,
}
ADAPTERS = {name: adapter for name, (adapter, _) in methods.METHODS.items()}
START_AT_THE_BASE = ("LoRA", "DoRA", "IA3", "VeRA", "LN tuning")


@pytest.fixture
def small(monkeypatch):
    """Few rows and a tiny model, so that a run takes seconds."""
    load, passages = datafiles.load_task, datafiles.load_passages
    monkeypatch.setattr(datafiles, "load_task", lambda name, split: load(name, split)[:8])
    monkeypatch.setattr(datafiles, "load_passages", lambda: [text[:40] for text in passages()])
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: tiny(VOCABULARY))
    methods._of_the_base.cache_clear()
    yield
    methods._of_the_base.cache_clear()


def recipe(name, **fields):
    return replace(methods.ADDITION, adapter=ADAPTERS[name], **fields)


def trained(adapter):
    """How many numbers an adapter trains on a model of the default one's shape."""
    shape = {"hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": LAYERS, "vocab_size": 1000}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_attention_heads=9, num_key_value_heads=3, **shape))
        return memory.count_parameters(get_peft_model(model, get_peft_config(dict(adapter))), trainable=True)


@pytest.mark.parametrize("name", SIZES)
def test_each_method_trains_as_many_numbers_as_its_formula_says(name):
    assert trained(ADAPTERS[name]) == SIZES[name]


@pytest.mark.parametrize("name", placement.PLACES)
def test_all_places_have_the_same_budget(name):
    assert trained(placement.PLACES[name]) == placement.BUDGET
    by_hand = sum(
        placement.PLACES[name]["rank_pattern"].get(target, placement.PLACES[name]["r"])
        * sum(WIDTHS[target.removesuffix("_proj")])
        for target in placement.PLACES[name]["target_modules"]
    )
    assert LAYERS * by_hand == placement.BUDGET


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_a_method_moves_is_measured_from_the_base_model(small, tokenizer, name):
    """Also where the adapter changes the predictions before it is trained, as virtual tokens do."""
    given = recipe(name)
    rows = {split: datafiles.load_task("addition", split) for split in datafiles.SPLITS}
    model = training.prepare_model(given)
    probe = Probe(model, tokenizer, given, rows, methods.SCORING)
    plain = evaluation.predictions(tiny(VOCABULARY), probe.before["general"].examples)
    for found, wanted in zip(probe.before["general"].log_probs, plain.log_probs, strict=True):
        torch.testing.assert_close(found, wanted)
    scores = probe.scores()
    moved = max(scores["general_kl"], scores["test_kl"])
    assert (moved < 1e-6) == (name in START_AT_THE_BASE)
    assert len(scores["general_nll_by_kind"]) == len(set(datafiles.load_passage_kinds())) == 6


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_run_trains_its_adapter_and_says_what_it_cost(small, name):
    found = methods.run(recipe(name, steps=2, lr=0.3))
    assert found["variant"] == name
    assert len(found["losses"]) == 2
    assert found["general_kl"] > 1e-7, "what was trained is what is measured"
    model = training.prepare_model(recipe(name))
    assert found["trained"] == memory.count_parameters(model, trainable=True)
    examples = chat.encode_answers(datafiles.load_task("addition", "train"), loading.load_tokenizer())
    assert 2 * 8 * min(map(len, (e["input_ids"] for e in examples))) <= found["tokens"]
    assert found["tokens"] <= 2 * 8 * max(map(len, (e["input_ids"] for e in examples))), "no virtual token is counted"


def test_the_base_is_measured_once_for_runs_that_differ_in_their_training_and_anew_for_other_weights(small):
    runs = recipe("LoRA", steps=2, seed=1), recipe("prompt tuning", steps=2, lr=0.3)
    shared = [methods.run(each) for each in runs]
    assert methods._of_the_base.cache_info().misses == 1
    for given, found in zip(runs, shared, strict=True):
        methods._of_the_base.cache_clear()
        alone = methods.run(given)
        assert alone | {"seconds_per_step": 0} == found | {"seconds_per_step": 0}
    methods.run(replace(runs[0], precision="bf16"))
    assert methods._of_the_base.cache_info().misses == 2


@pytest.mark.parametrize("name", ["LoRA", "P-tuning"])
def test_the_bytes_are_those_of_the_file(small, tmp_path, name):
    model = training.prepare_model(recipe(name))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    path = tmp_path / "adapter_model.safetensors"
    assert methods.file_bytes(model) == path.stat().st_size
    numbers = sum(tensor.numel() for tensor in load_file(path).values())
    assert 0 < path.stat().st_size - 4 * numbers < 8192, "fp32, and a header"


def test_the_untrained_run_scores_the_base_model(small):
    (untrained,) = [recipe for recipe in methods.STUDY.recipes if not recipe.steps]
    found = methods.run(untrained)
    assert found["variant"] == "none"
    assert found["general_kl"] == pytest.approx(0, abs=1e-6)
    assert "trained" not in found


def test_every_arm_has_the_same_seeds_and_every_method_three_rates_over_a_decade():
    runs = [recipe for recipe in methods.STUDY.recipes if recipe.steps]
    assert len(runs) == 72
    for adapter, rates in methods.METHODS.values():
        assert len(rates) == 3
        assert rates[2] == pytest.approx(10 * rates[0])
        arms = {(recipe.lr, recipe.seed) for recipe in runs if recipe.adapter == adapter}
        assert arms == {(lr, seed) for lr in rates for seed in (0, 1, 2)}


def test_placements_are_trained_as_the_methods_are():
    assert len(placement.STUDY.recipes) == 30
    arms = {
        (str(recipe.adapter), recipe.lr, recipe.seed)
        for recipe in placement.STUDY.recipes
        if replace(recipe, adapter=None, lr=1, seed=0) == replace(methods.ADDITION, adapter=None, lr=1, seed=0)
    }
    assert len(arms) == 5 * 2 * 3


def test_a_placement_names_its_place(small):
    assert placement.run(replace(placement.STUDY.recipes[0], steps=1))["place"] == "q"
