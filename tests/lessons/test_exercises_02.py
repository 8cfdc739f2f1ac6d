"""The solutions of lesson 02 against PEFT, transformers, the lesson, closed forms, and chance."""

import copy

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, OFTConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from scipy import stats
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import lessons, loading, studies
from course_utils.exercises.peft import accepts_adapter as files
from course_utils.exercises.peft import clear_gaps as gaps
from course_utils.exercises.peft import fitting_places as fitting
from course_utils.exercises.peft.first_noticed import Right
from course_utils.exercises.peft.merged_ia3 import merged_ia3
from course_utils.exercises.peft.needed_rank import needed_rank
from course_utils.exercises.peft.prefix_attention import prefix_attention
from course_utils.exercises.peft.rotation_parameters import SEVEN, rotation_parameters

lesson = lessons.definitions("02_peft")


@pytest.mark.parametrize("bias", [True, False])
def test_a_merged_ia3_is_pefts(bias):
    base = nn.Sequential(nn.Linear(5, 4, bias=bias), nn.Linear(4, 3, bias=bias))
    model = get_peft_model(base, IA3Config(target_modules=["0", "1"], feedforward_modules=["1"]))
    ours = []
    for layer in model.base_model.model:
        nn.init.normal_(layer.ia3_l["default"], mean=1.0)
        plain = copy.deepcopy(layer.base_layer)  # PEFT merges into the layer itself
        ours.append(merged_ia3(plain.weight, plain.bias, layer.ia3_l["default"].flatten(), layer.is_feedforward))
    for (weight, added), theirs in zip(ours, model.merge_and_unload(), strict=True):
        assert torch.allclose(weight, theirs.weight, atol=1e-6)
        assert torch.allclose(added, theirs.bias, atol=1e-6) if bias else added is theirs.bias is None


@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]])
def test_a_head_behind_a_prefix_is_that_of_transformers(mask):
    """A model of one layer and one head, with the lesson's prefix; at position 0 nothing is rotated."""
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = lesson.PrefixTuning(LlamaForCausalLM(LlamaConfig(vocab_size=16, **shape)), p=3).eval()
    attention, seen = model.model.model.layers[0].self_attn, {}
    for name in ("q_proj", "k_proj", "v_proj"):
        nn.init.normal_(getattr(attention, name).weight)
        attention.get_submodule(name).register_forward_hook(lambda _, x, y, name=name: seen.update({name: y[0]}))
    attention.o_proj.register_forward_hook(lambda _, x, y: seen.update(output=x[0][0]))
    mask = torch.tensor([mask])
    model(torch.arange(4)[None], mask, position_ids=torch.zeros_like(mask))
    prefix = model.keys_and_values()[0, :, 0]
    ours = prefix_attention(seen["q_proj"], seen["k_proj"], seen["v_proj"], *prefix, mask[0])
    assert torch.allclose(ours[mask[0].bool()], seen["output"][mask[0].bool()], atol=1e-5)


def test_zero_keys_take_their_share_of_equal_scores():
    """All scores are 0: the last of four tokens gives each of its own four and of four prefix places an eighth."""
    nothing, values = torch.zeros(4, 2), torch.ones(4, 2)
    found = prefix_attention(nothing, nothing, values, nothing, nothing, torch.ones(4))
    assert found[:, 0].tolist() == pytest.approx([1 / 5, 2 / 6, 3 / 7, 4 / 8])


def test_the_count_of_a_rotation_is_pefts_on_the_lessons_model():
    config = LlamaConfig.from_pretrained(loading.default_model_dir(), num_hidden_layers=2)
    with torch.device("meta"):
        model = get_peft_model(LlamaForCausalLM(config), OFTConfig(oft_block_size=64, target_modules=list(SEVEN)))
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    for target in SEVEN:
        count = sum(n for name, n in trained.items() if f".{target}." in name)
        assert rotation_parameters(config.to_dict(), 64, (target,)) == count
    assert rotation_parameters(config.to_dict(), 64, SEVEN) == sum(trained.values())


def test_the_layer_beside_which_faults_are_held_is_the_lessons_dora():
    right, x = Right(), torch.randn(5, 6)
    theirs = lesson.DoRALinear(right.base, r=2, lora_alpha=0.5)
    trained = (right.A, theirs.lora_A), (right.B, theirs.lora_B), (right.m, theirs.m)
    for a, b in trained:
        nn.init.normal_(a)
        b.data.copy_(a.data)
    y, expected = right(x), theirs(x)
    (y.square().sum() + expected.square().sum()).backward()
    assert torch.allclose(y, expected, atol=1e-5)
    assert all(torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-4) for a, b in trained)


def test_what_peft_saves_is_accepted_and_what_it_loads_in_silence_is_not():
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=16, num_key_value_heads=2, **shape))
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"v_proj": 2})
    model = get_peft_model(base, config)
    shapes = {
        name: tuple(layer.base_layer.weight.shape) for name, layer in model.named_modules() if hasattr(layer, "lora_A")
    }
    start = {name: each.clone() for name, each in get_peft_model_state_dict(model).items()}
    moved = {name: each + 0.1 for name, each in start.items()}
    assert len(shapes) == 6
    assert files.accepts_adapter(moved, shapes)
    for silent in (files.emptied(moved), files.cut_short(moved), start):
        set_peft_model_state_dict(model, silent)
        assert not files.accepts_adapter(silent, shapes)
    uneven = moved | {list(moved)[0]: torch.ones(5, 32)}
    assert not files.accepts_adapter(uneven, shapes)


def test_equal_methods_have_a_clear_gap_in_at_most_a_twentieth_of_all_tables():
    rng = np.random.default_rng(0)
    tables = [
        {name: dict(enumerate(row)) for name, row in zip("ABCD", rng.normal(size=(4, 5)), strict=True)}
        for _ in range(200)
    ]
    assert np.mean([bool(gaps.clear_gaps(table)) for table in tables]) < 0.05
    assert 0.17 < np.mean([bool(gaps.each_at_95(table)) for table in tables]) < 0.27
    assert stats.t.ppf(1 - 0.05 / 28 / 2, df=np.array([2, 8])) == pytest.approx([23.6, 4.6], abs=0.05)


def test_a_gap_is_clear_where_its_p_value_times_the_pairs_is_below_a_twentieth():
    rng = np.random.default_rng(1)
    scores = {name: dict(enumerate(2 * place + rng.normal(size=6))) for place, name in enumerate("ABCDE")}
    clear = {
        (one, other)
        for one in scores
        for other in scores
        if one > other  # later letters lie higher
        and 10 * stats.ttest_rel([*scores[one].values()], [*scores[other].values()]).pvalue < 0.05
    }
    assert 0 < len(clear) < 10
    assert set(gaps.clear_gaps(scores)) == clear


def test_the_stored_scores_are_those_of_the_lessons_scoreboard():
    runs = studies.table("methods").query("steps > 0")
    stored = gaps.stored_scores()
    for method, scores in stored.items():
        best = lesson.at_best(runs[runs["variant"] == method])
        assert scores == dict(zip(best["seed"], best["accuracy"], strict=True))
    assert f"called {len(gaps.each_at_95(stored))} gaps" in gaps.__doc__
    assert [len(stored), {len(scores) for scores in stored.values()}] == [8, {3}]
    assert gaps.clear_gaps(stored) == [], "the task says that so few seeds cannot bear so many comparisons"


def test_the_places_cost_what_the_formula_says():
    sides = {"q_proj": 256 + 256, "k_proj": 256 + 128, "v_proj": 256 + 128, "o_proj": 256 + 256}
    sides |= dict.fromkeys(fitting.FEED_FORWARD, 256 + 704)
    found = fitting.places(**fitting.fitting_places()).set_index("place")
    ranks = dict.fromkeys(fitting.ATTENTION, 8) | dict.fromkeys(fitting.FEED_FORWARD, 2)
    assert found["rank"].to_dict() == ranks
    assert found["parameters"].to_dict() == {place: 4 * ranks[place] * sides[place] for place in sides}
    assert found["parameters"].sum() <= fitting.MOST < fitting.places(**fitting.rank_3())["parameters"].sum()
    assert set(found["scale"]) == {2.0}


@pytest.mark.parametrize("most", [0.02, 0.2, 0.5])
def test_the_needed_rank_is_the_least_at_which_pefts_svd_loses_no_more(most):
    torch.manual_seed(0)
    names, sizes = ("first", "second"), ((3, 12.0), (4, 2.0))
    configs = [LoraConfig(r=r, lora_alpha=alpha, target_modules=["0"], init_lora_weights=False) for r, alpha in sizes]
    model = get_peft_model(nn.Sequential(nn.Linear(20, 15)), configs[0], adapter_name="first")
    model.add_adapter("second", configs[1])
    layer = model.base_model.model[0]
    adapters = [
        (layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach(), alpha)
        for name, (_, alpha) in zip(names, sizes, strict=True)
    ]
    whole = sum(layer.get_delta_weight(name) for name in names)

    def lost(rank: int) -> float:
        model.add_weighted_adapter(list(names), [1.0, 1.0], f"svd {rank}", combination_type="svd", svd_rank=rank)
        return ((layer.get_delta_weight(f"svd {rank}") - whole).norm() / whole.norm()).item()

    needed = needed_rank(adapters, most)
    assert 1 < needed < 8
    assert lost(needed) <= most < lost(needed - 1)
