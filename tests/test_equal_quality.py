"""The loops that are compared are what they say they are."""

import inspect
import math
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from torch import nn

from course_utils import batches, training
from course_utils.studies import equal_quality
from course_utils.studies.conversations import CONVERSATIONS
from course_utils.studies.equal_quality import VARIANTS
from course_utils.training import LORA
from tests.conftest import made_examples, tiny


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A small model instead of the default one, with an adapter if the recipe has one."""

    def prepare_model(recipe, device=None) -> nn.Module:
        model = tiny(49152)
        torch.manual_seed(recipe.seed)
        return get_peft_model(model, training.adapter_config(recipe)) if recipe.adapter else model

    monkeypatch.setattr(training, "prepare_model", prepare_model)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_known_by_its_recipe_trains_an_adapter_and_counts_its_tokens(name, tokenizer):
    recipe = replace(CONVERSATIONS, **VARIANTS[name], steps=3, batch_size=4, adapter={**LORA, "r": 4})
    assert equal_quality.variant(recipe) == name
    seen = []
    model, history = equal_quality.train(recipe, tokenizer, made_examples(), lambda step, _: seen.append(step))
    assert seen == [-1, 0, 1, 2]
    assert history.tokens == sum(len(example["input_ids"]) for example in made_examples())
    assert len(history.losses) == 3
    assert all(map(math.isfinite, history.losses))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


def test_the_plain_loop_uses_the_models_own_loss_and_its_first_one_is_ours(tokenizer):
    same = replace(CONVERSATIONS, steps=2, batch_size=4, batch_order="sequential", optim="adamw_torch")
    plain = equal_quality.plain_peft(
        training.prepare_model(same), made_examples(), same, on_step=lambda step, loss: None
    )
    ours = training.fit(training.prepare_model(same), made_examples(), same)
    assert plain.losses == pytest.approx(ours.losses, rel=1e-4)
    assert "supervised_loss" not in inspect.getsource(equal_quality.plain_peft)


def test_stock_trl_is_stock(tokenizer, monkeypatch):
    """Its own class, its own loss, its own defaults; with the fast settings of its documentation when tuned."""
    built = []

    class Watched(equal_quality.SFTTrainer):
        def __init__(self, **options):
            built.append(options["args"])
            super().__init__(**options)

    monkeypatch.setattr(equal_quality, "SFTTrainer", Watched)
    for name in ("stock_trl", "stock_trl_tuned"):
        recipe = replace(CONVERSATIONS, **VARIANTS[name], steps=1, batch_size=4)
        equal_quality.train(recipe, tokenizer, made_examples())
    found = [(args.gradient_checkpointing, args.train_sampling_strategy, args.loss_type, args.bf16) for args in built]
    assert found == [(True, "random", "nll", False), (False, "sequential", "nll", False)]
    assert equal_quality.SFTTrainer.__mro__[1].compute_loss is not training.SupervisedSFTTrainer.compute_loss


def test_the_grid_compares_like_with_like():
    recipes = equal_quality.STUDY.recipes
    settings = {name: {(r.precision, r.lr) for r in recipes if equal_quality.variant(r) == name} for name in VARIANTS}
    assert settings["ours"] == settings["plain_peft"] == settings["stock_trl"]
    seeds = {name: {r.seed for r in recipes if equal_quality.variant(r) == name} for name in VARIANTS}
    assert seeds["ours"] == seeds["plain_peft"] == {0, 1, 2}
    assert len(recipes) == len({str(recipe) for recipe in recipes})
    assert batches.WINDOW * CONVERSATIONS.batch_size < 387, "more than one window, as in a large collection"
