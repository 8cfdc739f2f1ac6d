"""Losses and generated answers against transformers and against one-at-a-time computation."""

import math

import pytest
import torch

from course_utils import chat, evaluation, loading
from course_utils.evaluation import Answer


def test_nll_equals_the_models_own_loss_example_by_example(model, examples):
    nats = tokens = 0
    for example in examples:
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        count = int((labels != -100).sum())
        with torch.no_grad():
            nats += model(input_ids=ids, labels=labels).loss.item() * count
        tokens += count
    found = evaluation.nll(model, examples, batch_size=3)
    assert found.tokens == tokens
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_nll_leaves_the_mode_alone(model, examples):
    model.train()
    _ = evaluation.nll(model, examples[:1])
    assert model.training
    model.eval()


def test_general_nll_is_per_token_of_raw_text(model, tokenizer):
    text = loading.load_passages()[0]
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=ids, labels=ids).loss.item()
    found = evaluation.general_nll(model, tokenizer, [text])
    assert found.mean == pytest.approx(expected, rel=1e-5)
    assert found.tokens == ids.shape[1] - 1


def test_forgetting_is_measured_on_the_passages(model, tokenizer, monkeypatch):
    passages = loading.load_passages()[:2]
    monkeypatch.setattr(evaluation, "load_passages", lambda: passages)
    nats = tokens = 0
    for text in passages:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            nats += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert evaluation.forgetting(model, tokenizer, 1.0) == pytest.approx(nats / tokens - 1, rel=1e-4)


def test_generation_in_a_batch_equals_one_at_a_time(model, tokenizer):
    """Fails with padding on the right, or without an attention mask."""
    threads = [chat.question("Hi"), chat.question("What is the capital of France, and of Italy?")]
    together = evaluation.generate(model, tokenizer, threads, template="chatml", max_new_tokens=12)
    alone = [evaluation.generate(model, tokenizer, [t], template="chatml", max_new_tokens=12)[0] for t in threads]
    assert together == alone
    assert tokenizer.padding_side == "right"


def test_generation_says_whether_it_stopped(model, tokenizer):
    thread = chat.question("What is the capital of France?")
    long, short = (
        evaluation.generate(model, tokenizer, [thread], template="chatml", max_new_tokens=n)[0] for n in (60, 2)
    )
    assert long.stopped
    assert not short.stopped
    assert tokenizer.eos_token not in long.text


def test_rates():
    answers = [Answer("a", True), Answer("b", True), Answer("c", False), Answer("d", True)]
    assert evaluation.stop_rate(answers) == 0.75
    assert evaluation.accuracy(answers, ["a", "B", "c", "x"]) == 0.5
    with pytest.raises(ValueError, match="shorter"):
        evaluation.accuracy(answers, ["a"])
