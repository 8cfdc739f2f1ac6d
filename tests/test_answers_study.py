"""The study of answers: each arm is asked in the words that it knows, and learns from what it is named for."""

from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from peft import get_peft_model

from course_utils import chat, datafiles, evaluation, training
from course_utils.studies import answers, conversations, qlora, records
from course_utils.training import Recipe
from tests.conftest import tiny
from tests.test_studies import UNDER_WAY

ARMS = answers.ARMS


@pytest.fixture
def small(monkeypatch):
    """Few texts and a tiny model, so that a run takes seconds; returns the models that were prepared."""
    prompts, trees, made = datafiles.load_prompts, datafiles.load_conversations, []
    monkeypatch.setattr(datafiles, "load_prompts", lambda: prompts()[:3])
    monkeypatch.setattr(datafiles, "load_conversations", lambda split: trees(split=split)[:9])
    monkeypatch.setitem(answers.SCORING, "max_new_tokens", 4)

    def prepare_model(recipe: Recipe) -> torch.nn.Module:
        torch.manual_seed(recipe.seed)
        model, config = tiny(49152), training.adapter_config(recipe)
        made.append(get_peft_model(model, config) if config else model)
        return made[-1]

    monkeypatch.setattr(training, "prepare_model", prepare_model)
    return made


def test_the_base_is_asked_in_its_own_template_with_its_system_turn(small, tokenizer, monkeypatch):
    """As the tokenizer's own template writes it, where no system turn is given."""
    asked, generate = [], evaluation.generate
    monkeypatch.setattr(evaluation, "generate", lambda *a, **how: asked.append((a[2], how)) or generate(*a, **how))
    found = answers.run(ARMS["base"])
    (threads, how), prompts = asked[0], datafiles.load_prompts()
    for thread, prompt in zip(threads, prompts, strict=True):
        own = tokenizer.apply_chat_template(chat.question(prompt["text"]), tokenize=False, add_generation_prompt=True)
        assert chat.render(thread, tokenizer, how["template"], ask=True) == own
    assert set(found) == {"answers", "stopped", "test_nll"}
    assert len(found["answers"]) == len(found["stopped"]) == 3


def test_a_trained_arm_leaves_its_answers_and_its_loss(small, tokenizer):
    found, model = answers.run(replace(ARMS["LoRA"], steps=2, batch_size=2)), small[-1]
    threads = [chat.question(prompt["text"]) for prompt in datafiles.load_prompts()]
    expected = evaluation.generate(model, tokenizer, threads, max_new_tokens=4)
    assert found["answers"] == [answer.text for answer in expected]
    assert found["stopped"] == [answer.stopped for answer in expected]
    test = [chat.encode(chat.top_thread(tree), tokenizer) for tree in datafiles.load_conversations(split="test")]
    assert found["test_nll"] == pytest.approx(evaluation.nll(model, test).mean, rel=1e-5)
    assert len(found["losses"]) == 2


def test_the_worst_arm_learns_from_the_worst_replies_and_the_others_from_the_best(small, tokenizer):
    trees = datafiles.load_conversations(split="train")
    worst = [chat.question(tree.text, tree.replies[-1].text) for tree in trees]
    assert answers.examples(tokenizer, ARMS["worst"]) == [chat.encode(thread, tokenizer) for thread in worst]
    for arm in ("LoRA", "QLoRA", "full"):
        assert answers.examples(tokenizer, ARMS[arm]) == conversations.encoded(tokenizer, ARMS[arm])["train"]


def test_the_worst_threads_have_one_question_and_as_many_answer_tokens_as_the_rules_say(tokenizer):
    learned = {}
    for arm in ("LoRA", "worst"):
        rows = answers.examples(tokenizer, ARMS[arm])
        learned[arm] = sum(label != chat.IGNORE for row in rows for label in row["labels"]) / len(rows)
    assert f"{learned['worst']:.0f} answer tokens where the best have {learned['LoRA']:.0f}" in answers.__doc__


def test_arms_are_runs_of_the_study_that_chooses_their_rates_and_differ_in_what_they_say():
    assert [ARMS[arm] for arm in answers.RATES if ARMS[arm] not in qlora.STUDY.recipes] == []
    base = asdict(ARMS["LoRA"])
    differing = {arm: {k for k, v in asdict(recipe).items() if v != base[k]} for arm, recipe in ARMS.items()}
    assert differing == {
        "base": {"adapter", "steps", "template"},
        "LoRA": set(),
        "QLoRA": {"precision", "compute_dtype"},
        "full": {"adapter", "lr"},
        "worst": {"subset"},
    }


@pytest.mark.skipif("qlora" in UNDER_WAY, reason="runs of the study that chooses the rates are still missing")
def test_the_rates_are_those_that_the_validation_conversations_chose():
    rows = qlora.looks()
    assert {arm: qlora.last_looks(rows, arm)["lr"].iloc[0] for arm in answers.RATES} == answers.RATES


def test_runs_have_the_names_of_their_arms_whatever_their_order(monkeypatch):
    recipes = [ARMS[arm] for arm in ("worst", "QLoRA", "base", "full", "LoRA")]
    rows = [records._row({"recipe": asdict(recipe), "test_nll": recipe.lr}) for recipe in recipes]
    monkeypatch.setattr(records, "table", lambda name: pd.DataFrame(rows))
    found = answers.runs()
    assert list(found.index) == list(ARMS)
    assert found["template"].tolist() == ["chatml", *["guanaco"] * 4]
    assert found["subset"].tolist()[-1] == "worst"
    assert found.loc["full", "test_nll"] == 1e-4
