"""The study of the conversations: its arms differ in what they say, packing keeps apart, its rules are as written."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import get_peft_model
from scipy import stats

from course_utils import batches, chat, datafiles, evaluation, training
from course_utils.chat import IGNORE
from course_utils.core import files
from course_utils.studies import guanaco, records
from course_utils.training import Recipe
from tests.conftest import made_examples, tiny

ARMS = guanaco.ARMS


@pytest.fixture
def small(monkeypatch):
    """Few texts, cut short, and a tiny model, so that a run takes seconds; returns the models that were prepared."""
    passages, trees, made = datafiles.load_passages, datafiles.load_conversations, []
    monkeypatch.setattr(datafiles, "load_passages", lambda: [text[:60] for text in passages()[:9]])
    monkeypatch.setattr(datafiles, "load_conversations", lambda split: trees(split=split)[:17])
    monkeypatch.setitem(guanaco.SCORING, "max_new_tokens", 4)

    def prepare_model(recipe: Recipe) -> torch.nn.Module:
        model, config = tiny(49152), training.adapter_config(recipe)
        torch.manual_seed(recipe.seed)
        made.append(get_peft_model(model, config) if config else model)
        return made[-1]

    monkeypatch.setattr(training, "prepare_model", prepare_model)
    return made


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_conversations_are_kept_apart_by_their_positions_alone(attention):
    """Token by token the losses of the padded batch; without positions those behind the first conversation differ."""
    model, rows = tiny().double(), made_examples(4)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        alone = batches.token_losses(model, batches.collate(rows))
        own, shared = (
            batches.token_losses(model, batches.collate([guanaco.packed(rows, positions)]))
            for positions in (True, False)
        )
    torch.testing.assert_close(own, alone, rtol=1e-6, atol=1e-6)  # eager attention takes its softmax in fp32
    first = sum(label != IGNORE for label in rows[0]["labels"][1:])
    torch.testing.assert_close(shared[:first], alone[:first], rtol=1e-6, atol=1e-6)
    assert (shared[first:] - alone[first:]).abs().min() > 1e-3


def test_rows_of_packed_conversations_may_be_padded_to_one_length():
    model, rows = tiny().double(), made_examples(5)
    packs = [guanaco.packed(rows[:3], True), guanaco.packed(rows[3:], True)]
    with torch.no_grad():
        found = batches.token_losses(model, batches.collate(packs))
        torch.testing.assert_close(found, batches.token_losses(model, batches.collate(rows)), rtol=1e-10, atol=1e-10)


def test_no_conversation_predicts_the_next(tokenizer):
    row = guanaco.packed([{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [3, 4], "labels": [3, 4]}], True)
    wanted = {"input_ids": [1, 2, 3, 4], "labels": [IGNORE, 2, IGNORE, 4], "position_ids": [0, 1, 0, 1]}
    assert row == wanted


def test_packed_arms_see_the_steps_of_the_padded_arm(tokenizer):
    padded = guanaco.examples(tokenizer, ARMS["best"])
    steps = batches.batches(padded, ARMS["best"].batch_size, 3, "random")
    seen = [[token for one in next(steps) for token in one["input_ids"]] for _ in range(guanaco.PASS)]
    for arm in ("packed", "packed, own positions", "packed, a quarter of the steps"):
        recipe = replace(ARMS[arm], seed=3)
        rows = guanaco.examples(tokenizer, recipe)
        assert [row["input_ids"] for row in rows] == seen
        assert recipe.steps * recipe.accumulation * recipe.batch_size == guanaco.PASS
        assert recipe.batch_order == "sequential"


def test_padded_and_packed_runs_are_one_computation(small, tokenizer):
    """Two steps of the loop itself: the same losses with positions, others without."""
    short = {"steps": 2, "lr": 1e-2}
    losses = {
        arm: guanaco.run(replace(ARMS[arm], **short))["losses"] for arm in ("best", "packed", "packed, own positions")
    }
    assert losses["packed, own positions"] == pytest.approx(losses["best"], abs=2e-4)
    assert losses["packed"] != pytest.approx(losses["best"], abs=2e-4)


def test_replies_are_those_of_the_file():
    path = files.data_dir() / "conversations.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    replies = {}
    for row in rows:
        if row["parent_id"]:
            replies.setdefault(row["parent_id"], []).append((row["rank"], row["text"]))
    trees = datafiles.load_conversations()
    for tree in trees:
        ranked = [text for _, text in sorted(replies[tree.message_id])]
        found = {side: guanaco.first_replies(tree, side) for side in ("best", "worst", "all")}
        assert found["best"] == [chat.question(tree.text, ranked[0])]
        assert found["worst"] == [chat.question(tree.text, ranked[-1])]
        assert [thread[1]["content"] for thread in found["all"]] == ranked
    assert len(trees) > 400


def test_a_quarter_is_a_part_of_the_half_and_every_seed_draws_its_own(tokenizer):
    drawn = {
        (arm, seed): {tuple(one["input_ids"]) for one in guanaco.examples(tokenizer, replace(ARMS[arm], seed=seed))}
        for arm in ("threads", "half", "quarter")
        for seed in (0, 1)
    }
    for seed in (0, 1):
        assert drawn["quarter", seed] < drawn["half", seed] < drawn["threads", seed]
    assert [len(drawn[arm, 0]) for arm in ("threads", "half", "quarter")] == [387, 193, 96]
    assert drawn["threads", 0] == drawn["threads", 1]
    assert drawn["quarter", 0] != drawn["quarter", 1]


def test_arms_differ_in_what_they_say():
    base = asdict(ARMS["threads"])
    differing = {arm: {k for k, v in asdict(recipe).items() if v != base[k]} for arm, recipe in ARMS.items()}
    assert differing["all tokens"] == {"train_on", "steps"}
    assert differing["half"] == differing["quarter"] == {"subset", "steps"}
    assert {k for k, v in asdict(ARMS["best"]).items() if v != asdict(ARMS["worst"])[k]} == {"subset"}
    same = {(r.lr, str(r.adapter), r.model, r.precision, r.max_length, r.schedule) for r in ARMS.values()}
    assert len(same) == 1
    trained = [recipe for recipe in guanaco.STUDY.recipes if recipe.steps]
    assert len(trained) == len(ARMS) * len(guanaco.SEEDS)
    assert len(guanaco.SEEDS) >= 3
    assert [recipe.seed for recipe in trained] == sorted(recipe.seed for recipe in trained)
    assert len(guanaco.STUDY.recipes) * guanaco.STUDY.minutes <= 180


def test_a_run_is_looked_at_after_a_pass_after_three_and_at_its_end(small, tokenizer, monkeypatch):
    monkeypatch.setitem(guanaco.SCORING, "looks", [2, 3])
    counts = {steps: len(guanaco.run(replace(ARMS["threads"], steps=steps))["chrf"]) for steps in (1, 2, 3)}
    assert counts == {1: 1, 2: 1, 3: 2}
    found, model = guanaco.run(replace(ARMS["threads"], steps=2)), small[-1]
    trees = datafiles.load_conversations(split="test")
    worst = [chat.question(tree.text, tree.replies[-1].text) for tree in trees]
    threads = [chat.top_thread(tree) for tree in trees]
    for name, texts in {"worst_nll": worst, "thread_nll": threads}.items():
        alone = [evaluation.nll(model, [chat.encode(text, tokenizer)]) for text in texts]
        assert found[name][-1] == pytest.approx(sum(x.nats for x in alone) / sum(x.tokens for x in alone), rel=1e-4)
    assert 0 <= found["chrf"][-1] <= 100


def recorded(monkeypatch, tmp_path, scores):
    """Looks at a study in which each run scored what `scores(recipe, look)` says."""
    monkeypatch.setattr(records.files, "data_dir", lambda: tmp_path)
    (tmp_path / "conversations.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "passages.jsonl").write_text("{}\n", encoding="utf-8")
    names = ("best_nll", "worst_nll", "thread_nll", "general_nll", "stop_rate", "chrf")

    def run(recipe: Recipe) -> dict[str, object]:
        count = 2 if recipe.steps == 3 * guanaco.PASS else 1
        seen = {name: [scores(recipe, place) for place in range(count)] for name in names}
        return seen | ({"losses": [1.0], "tokens": 1} if recipe.steps else {})

    cost = {"seconds": 1, "peak_bytes": 1, "machine": "torch 2, CPU"}
    lines = [{**guanaco.STUDY.identity(recipe), **run(recipe), **cost} for recipe in guanaco.STUDY.recipes]
    guanaco.STUDY.path.parent.mkdir()
    guanaco.STUDY.path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return guanaco.looks()


def test_looks_have_the_names_of_their_arms_and_their_steps(monkeypatch, tmp_path):
    rows = recorded(monkeypatch, tmp_path, lambda recipe, place: recipe.steps + place)
    counted = rows.groupby(["arm", "step"]).size().to_dict()
    seeds = len(guanaco.SEEDS)
    ends = {(arm, recipe.steps): seeds for arm, recipe in ARMS.items()}
    assert counted == {**ends, ("threads", guanaco.PASS): seeds, ("untrained", 0): 1}
    assert set(guanaco.look(rows, "threads")["chrf"]) == {144.0}
    assert set(guanaco.look(rows, "threads", 144)["chrf"]) == {145.0}
    with pytest.raises(ValueError, match=r"No look at 'best' at 7; there are: all at 48, all tokens at 48"):
        guanaco.look(rows, "best", 7)


def test_arms_are_compared_seed_by_seed(monkeypatch, tmp_path):
    """Against scipy's paired t: the spread between the seeds, which both arms share, drops out."""
    chance = np.random.default_rng(0)
    scored = {str(recipe): chance.normal(10 * recipe.seed, 1) for recipe in guanaco.STUDY.recipes}
    rows = recorded(monkeypatch, tmp_path, lambda recipe, place: scored[str(recipe)] + place)
    one, other = ([scored[str(replace(ARMS[a], seed=s))] for s in guanaco.SEEDS] for a in ("half", "quarter"))
    found = guanaco.compared(rows, "half", "quarter")
    test = stats.ttest_rel(one, other)
    low, high = test.confidence_interval(0.95)
    assert found["difference"] == pytest.approx(np.mean(one) - np.mean(other), abs=1e-5)
    assert found["half"] == pytest.approx((high - low) / 2, abs=1e-5)
    passes = guanaco.compared(rows, "threads", "threads", steps=(144, 48))
    assert (passes["difference"], passes["half"], passes["words"]) == (
        pytest.approx(1),
        pytest.approx(0, abs=1e-5),
        "higher",
    )


def test_the_ranking_is_judged_by_the_mean_of_both_tests():
    rows = pd.DataFrame({"arm": ["best"] * 3 + ["worst"] * 3, "step": 48, "seed": [0, 1, 2] * 2})
    rows["best_nll"], rows["worst_nll"] = [3.0, 3.1, 3.2, 3.5, 3.6, 3.7], [3.6, 3.7, 3.8, 3.1, 3.2, 3.3]
    assert guanaco.side_effect(rows)["difference"] == pytest.approx(0)
    assert guanaco.side_effect(rows)["words"] == "not decided", "each side is only better on its own kind"
    rows.loc[rows["arm"] == "best", "worst_nll"] -= [0.30, 0.31, 0.32]
    assert guanaco.side_effect(rows)["difference"] == pytest.approx(-0.155)
    assert guanaco.side_effect(rows)["words"] == "lower"


@pytest.mark.parametrize(
    ("difference", "half", "said", "same"),
    [
        (-0.2, 0.1, "lower", False),
        (0.2, 0.1, "higher", False),
        (-0.05, 0.1, "not decided", False),
        (0.004, 0.005, "not decided", True),
        (0.004, 0.001, "higher", True),
        (0.006, 0.005, "higher", False),
    ],
)
def test_what_an_interval_says(difference, half, said, same):
    assert guanaco.words(difference, half) == said
    assert guanaco.equal(difference, half) is same
