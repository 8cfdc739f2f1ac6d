"""The solutions of lesson 01 against PEFT, scipy, the layer of the lesson, and closed forms."""

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy import stats
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import intervals, lessons, loading, memory, studies
from course_utils.exercises.lora import fitting_setup as fitting
from course_utils.exercises.lora import same_training as same
from course_utils.exercises.lora.accepts_merge import accepts_merge
from course_utils.exercises.lora.choose_rate import choose_rate
from course_utils.exercises.lora.correlation_at_a_rate import correlation_at_a_rate
from course_utils.exercises.lora.equally_good import equally_good
from course_utils.exercises.lora.kept_bytes import kept_bytes
from course_utils.exercises.lora.lora_embedding import lora_embedding
from course_utils.exercises.lora.swap_adapter import swap_adapter
from course_utils.exercises.lora.trained_parameters import ATTENTION, FEED_FORWARD, trained_parameters


def test_the_embedding_is_pefts():
    model = get_peft_model(nn.Sequential(nn.Embedding(11, 5)), LoraConfig(r=3, lora_alpha=12, target_modules=["0"]))
    layer = model.base_model.model[0]
    A, B = layer.lora_embedding_A["default"], layer.lora_embedding_B["default"]
    nn.init.normal_(A)
    ids = torch.randint(11, (2, 4))
    assert torch.allclose(lora_embedding(ids, layer.base_layer.weight, A, B, 12.0), model(ids), atol=1e-6)


def test_a_swap_is_what_peft_unmerges_and_merges():
    first = LoraConfig(r=2, lora_alpha=16, target_modules=["0"], init_lora_weights=False)
    model = get_peft_model(nn.Sequential(nn.Linear(5, 4)), first, adapter_name="old")
    model.add_adapter("new", LoraConfig(r=3, lora_alpha=3, target_modules=["0"], init_lora_weights=False))
    layer = model.base_model.model[0]
    old, new = (
        (layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach(), alpha)
        for name, alpha in (("old", 16), ("new", 3))
    )
    layer.merge(adapter_names=["old"])
    merged = layer.base_layer.weight.detach().clone()
    layer.unmerge()
    layer.merge(adapter_names=["new"])
    assert torch.allclose(swap_adapter(merged, old, new), layer.base_layer.weight, atol=1e-6)


def test_the_count_is_that_of_the_lessons_model():
    config = LlamaConfig.from_pretrained(loading.default_model_dir()).to_dict()
    assert trained_parameters(config, 16, ATTENTION + FEED_FORWARD) == 4_884_480


def test_what_is_kept_is_what_a_ledger_finds_with_peft_on_a_bf16_base():
    base = nn.Sequential(nn.Linear(64, 64, bias=False, dtype=torch.bfloat16))
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["0"]))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(torch.randn(3, 64, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    found = memory.ledger(model, optimizer).to_dict()
    found["optimizer states"] -= 4 * len(trained)  # step counters
    predicted = kept_bytes(64 * 64, memory.count_parameters(model, trainable=True))
    assert predicted == {key: found[key] for key in predicted}


def test_a_merge_of_torch_is_accepted_and_one_that_transposes_is_not():
    assert accepts_merge(lambda W, A, B, alpha: torch.addmm(W, B, A, alpha=alpha / len(A)))
    assert not accepts_merge(lambda W, A, B, alpha: W + alpha / len(A) * B @ A.flip(0))


@pytest.mark.parametrize("seed", range(20))
def test_equal_is_what_two_one_sided_tests_call_equivalent(seed):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.5, 0.9, rng.integers(2, 8))
    differences = rng.normal(rng.choice([0.0, 0.05, -0.1]), 0.02, len(scores))
    test = stats.ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(0.95)
    word = "seen here" if low > -0.05 and high < 0.05 else "not decided here"
    word = "the opposite seen here" if low > 0.05 or high < -0.05 else word
    assert equally_good(dict(enumerate(scores + differences)), dict(enumerate(scores)), 0.05) == word


def test_the_rate_is_found_by_going_through_all_settings():
    looks = studies.looks().query(
        "data == 'dates' and method == 'full' and trainable.isna() and schedule == 'constant'"
    )
    best = None
    for lr in looks["lr"].unique():
        for step in looks["step"].unique():
            at = looks[(looks["lr"] == lr) & (looks["step"] == step)]
            mean, half = intervals.mean_and_interval(at["forgetting"])
            if mean + half < 0.05 and (best is None or at["validation_nll"].mean() < best[0]):
                best = at["validation_nll"].mean(), lr, step
    assert choose_rate(looks, 0.05) == best[1:]


def test_the_correlation_is_that_of_the_residuals_of_a_regression_on_the_rates():
    rng = np.random.default_rng(1)
    rate = rng.integers(0, 3, 40)
    x, noise = rate + rng.normal(0, 1, 40), rng.normal(0, 1, 40)
    runs = pd.DataFrame(
        {"lr": 10.0 ** -(rate + 3), "update_norm": np.exp(x), "forgetting": np.exp(3 * rate - x + noise)}
    )
    dummies = np.eye(3)[rate]
    logs = np.log(runs[["update_norm", "forgetting"]].to_numpy())
    rest = logs - dummies @ np.linalg.pinv(dummies) @ logs
    assert correlation_at_a_rate(runs) == pytest.approx(stats.pearsonr(*rest.T).statistic)


def test_the_same_training_is_the_same_with_the_layer_of_the_lesson():
    layers = lessons.definitions("01_lora")

    def losses(lora_alpha: float, lr_a: float, lr_b: float, start: float) -> list[float]:
        torch.manual_seed(0)
        layer, x, y = layers.LoRALinear(nn.Linear(6, 5), 2, lora_alpha).double(), torch.randn(9, 6), torch.randn(9, 5)
        layer.lora_A.data *= start
        groups = [{"params": [layer.lora_A], "lr": lr_a}, {"params": [layer.lora_B], "lr": lr_b}]
        optimizer, found = torch.optim.Adam(groups, eps=1e-30), []
        for _ in range(20):
            optimizer.zero_grad()
            loss = (layer(x.double()) - y).square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    before = {"lora_alpha": 8.0, "lr_a": 0.03, "lr_b": 0.05, "start": 2.0}
    answers = [answer(before, 2.0) for answer in (same.same_training, *same.EXERCISE.alternatives)]
    assert [losses(**settings) for settings in answers] == [pytest.approx(losses(**before), rel=1e-9)] * 3
    assert losses(**before)[-1] < 0.9 * losses(**before)[0]


def test_the_memory_that_has_to_fit_is_that_of_the_formula():
    parts = fitting.step_bytes(None, "fp32", 1)
    shape = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1024, tie_word_embeddings=True, **shape))
    weights = memory.count_parameters(model)
    assert parts["trainable weights"] == parts["gradients"] == 4 * weights
    assert parts["optimizer states"] == 8 * weights + 4 * len(list(model.parameters()))
    assert parts.sum() > fitting.MOST
    assert fitting.step_bytes(8, "bf16", 2).sum() < fitting.MOST < fitting.step_bytes(8, "fp32", 1).sum()
