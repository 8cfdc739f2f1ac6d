"""What notebook 02 defines, taken out of it and held against PEFT, real text in place of virtual tokens, and norms."""

import copy

import pandas as pd
import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import DynamicCache

from course_utils import lessons, training
from course_utils.batches import collate, supervised_loss
from tests.conftest import made_examples, tiny

lesson = lessons.definitions("02_peft")
LM, P = {"task_type": "CAUSAL_LM"}, 5
OURS = {
    "IA3": (lesson.add_ia3, peft.IA3Config(**LM)),
    "prompt tuning": (
        lambda model: lesson.PromptTuning(model, P),
        peft.PromptTuningConfig(num_virtual_tokens=P, **LM),
    ),
    "P-tuning": (
        lambda model: lesson.PTuning(model, P, 6),
        peft.PromptEncoderConfig(num_virtual_tokens=P, encoder_hidden_size=6, **LM),
    ),
    "prefix tuning": (
        lambda model: lesson.PrefixTuning(model, P),
        peft.PrefixTuningConfig(num_virtual_tokens=P, **LM),
    ),
}


@pytest.fixture(params=OURS)
def pair(request) -> tuple[nn.Module, nn.Module]:
    """A method of ours and PEFT's, on the same tiny model, with the same trained parameters off their start."""
    by_hand, config = OURS[request.param]
    ours, theirs = by_hand(tiny()), get_peft_model(tiny(), config)
    lesson.copy_trained(ours, theirs)
    return ours, theirs


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Rows of different lengths, padded."""
    return collate(made_examples(4))


def test_each_method_has_the_losses_and_gradients_of_pefts(pair, batch):
    losses = [supervised_loss(model, batch) for model in pair]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-6)
    for a, b in zip(*map(training.trainable_parameters, pair), strict=True):
        assert a.grad.any()
        assert torch.allclose(a.grad, b.grad.view_as(a), atol=1e-6)


def test_each_method_trains_only_its_own(pair, batch):
    ours, _ = pair
    frozen = {name: p.detach().clone() for name, p in ours.named_parameters() if not p.requires_grad}
    _ = training.fit(ours, made_examples(8), training.Recipe(steps=2, lr=1e-2, batch_size=4))
    assert frozen.keys() == {name for name, p in ours.named_parameters() if torch.equal(p, frozen.get(name, p + 1))}


@pytest.mark.parametrize(("name", "start"), [("prompt tuning", "prompt"), ("prefix tuning", "prefix")])
def test_virtual_tokens_start_as_pefts_do(name, start):
    by_hand, config = OURS[name]
    made = []
    for make in (by_hand, lambda model: get_peft_model(model, config)):
        model = tiny()
        torch.manual_seed(3)
        made.append(training.trainable_parameters(make(model))[0])
    assert torch.equal(made[0], made[1].view_as(made[0])), start


def test_ia3_starts_unchanged_and_its_factors_can_be_merged():
    base, x = nn.Linear(6, 4, bias=False), torch.randn(3, 6)
    for feedforward, width in ((False, 4), (True, 6)):
        layer = lesson.IA3Linear(copy.deepcopy(base), feedforward)
        assert layer.scale.shape == (width,)
        assert torch.equal(layer(x), base(x))
        with torch.no_grad():
            layer.scale.normal_()
        merged = base.weight * (layer.scale if feedforward else layer.scale[:, None])
        assert torch.allclose(layer(x), nn.functional.linear(x, merged), atol=1e-6)


@torch.no_grad()
def test_a_prompt_of_real_embeddings_is_that_text(batch):
    model, text = tiny(), torch.tensor([7, 9, 11, 13, 15])
    ours = lesson.PromptTuning(model, P)
    ours.prompt.copy_(model.get_input_embeddings()(text))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    whole = torch.cat([text.expand(len(ids), -1), ids], dim=1)
    seen = torch.cat([torch.ones(len(ids), P, dtype=mask.dtype), mask], dim=1)
    assert torch.allclose(ours(ids, mask).logits, model(whole, attention_mask=seen).logits, atol=1e-5)


@torch.no_grad()
def test_a_prefix_of_real_keys_and_values_is_that_text(batch):
    model, text, cache = tiny(), torch.tensor([[7, 9, 11, 13, 15]]), DynamicCache()
    model(text, past_key_values=cache, use_cache=True)
    ours = lesson.PrefixTuning(model, P)
    real = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])
    ours.prefix.copy_(real.permute(3, 0, 1, 2, 4).reshape(P, -1))
    assert torch.equal(ours.keys_and_values(), real)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    whole = torch.cat([text.expand(len(ids), -1), ids], dim=1)
    seen = torch.cat([torch.ones(len(ids), P, dtype=mask.dtype), mask], dim=1)
    assert torch.allclose(ours(ids, mask).logits, model(whole, attention_mask=seen).logits[:, P:], atol=1e-5)


def test_dora_starts_as_its_base_has_rows_of_length_m_and_equals_pefts():
    torch.manual_seed(1)
    base, x = nn.Linear(12, 20, bias=False), torch.randn(5, 12)
    config = LoraConfig(r=3, lora_alpha=6, target_modules=["0"], use_dora=True)
    theirs = get_peft_model(nn.Sequential(copy.deepcopy(base)), config)
    ours = lesson.DoRALinear(copy.deepcopy(base), r=3, lora_alpha=6)
    assert torch.allclose(ours(x), base(x), atol=1e-6)
    lesson.copy_trained(ours, theirs)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    rows = ours(torch.eye(12)).T  # the matrix that the layer multiplies by
    assert torch.allclose(rows.norm(dim=1), ours.m.abs(), atol=1e-5)


def test_at_best_keeps_the_rate_with_the_lowest_mean_validation_loss():
    rows = [
        {"lr": lr, "seed": seed, "validation_nll": loss + seed}
        for lr, loss in {1e-3: 0.3, 1e-2: 0.1}.items()
        for seed in (0, 1)
    ]
    assert lesson.at_best(pd.DataFrame(rows))["lr"].tolist() == [1e-2, 1e-2]


def test_the_likeliest_continuation_is_that_of_generate():
    model, ids = tiny(), [3, 7, 11]
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert lesson.likeliest(model, ids, 4) == model.generate(torch.tensor([ids]), **options)[0].tolist()


@pytest.mark.parametrize(("scale", "found"), [(1 + 3e-6, "nothing"), (1 + 1e-3, "logits")])
def test_rounding_of_large_logits_is_no_difference(monkeypatch, batch, scale, found):
    """A logit of 40 is rounded to a few millionths; how, depends on the kind of CPU."""
    names = lesson.first_difference.__globals__
    monkeypatch.setitem(names, "batch", batch)
    monkeypatch.setitem(names, "encoded", made_examples(20))
    by_hand, config = OURS["prompt tuning"]
    ours, theirs = by_hand(tiny()), get_peft_model(tiny(), config)
    with torch.no_grad():
        for model, factor in ((ours, 100), (theirs, 100 * scale)):
            model.get_submodule("model" if model is ours else "base_model").lm_head.weight.mul_(factor)
    assert lesson.first_difference(ours, theirs, lr=1e-3) == found
