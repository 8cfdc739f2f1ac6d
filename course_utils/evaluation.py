"""Is it better, and what did it forget? Losses on held-out text, generated answers, and whether they stop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils.chat import Example, Turn, render
from course_utils.datafiles import load_passages
from course_utils.training import collate, token_losses


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of held-out tokens: `nats` in all, over `tokens` tokens."""

    nats: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean: the number of equally likely tokens that the model hesitates between."""
        return math.exp(self.mean)


@dataclass(frozen=True)
class Answer:
    """A generated answer; `stopped` says whether the model ended it itself, rather than the length limit."""

    text: str
    stopped: bool


@torch.no_grad()
def nll(model: nn.Module, examples: Sequence[Example], batch_size: int = 8) -> NLL:
    """Loss of the labeled tokens of `examples`, summed. The model is left in the mode it was in."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    by_length = sorted(examples, key=lambda example: len(example["input_ids"]))  # little padding
    nats, tokens = 0.0, 0
    for start in range(0, len(by_length), batch_size):
        batch = collate(by_length[start : start + batch_size])
        losses = token_losses(model, {name: tensor.to(device) for name, tensor in batch.items()})
        nats += losses.double().sum().item()
        tokens += losses.numel()
    model.train(training)
    return NLL(nats, tokens)


def general_nll(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, passages: Sequence[str], max_length: int = 256
) -> NLL:
    """Loss on general text that no fine-tuning set holds; what it gains over the base model's is forgetting.

    Args:
        passages: `loading.load_passages()`, or other text in the style of pretraining.
        max_length: in tokens per passage.
    """
    ids = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in passages]
    return nll(model, [{"input_ids": row, "labels": row} for row in ids])


def forgetting(model: nn.Module, tokenizer: PreTrainedTokenizerBase, before: float) -> float:
    """Rise of the loss on general text over `before`, the untrained model's, in nats per token; negative is a gain.

    The text is `data/passages.jsonl`, which is never trained on.
    """
    return general_nll(model, tokenizer, load_passages()).mean - before


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    threads: Sequence[list[Turn]],
    *,
    template: str = "guanaco",
    max_new_tokens: int = 64,
    batch_size: int = 16,
) -> list[Answer]:
    """The model's greedy answer to each thread (turns that end with the user's).

    Prompts are padded on the left, so that every answer starts right behind its prompt. The model is left in the mode
    it was in.
    """
    training, side = model.training, tokenizer.padding_side
    model.eval()
    tokenizer.padding_side = "left"
    answers = []
    try:
        for start in range(0, len(threads), batch_size):
            texts = [render(t, tokenizer, template, ask=True) for t in threads[start : start + batch_size]]
            inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
            output = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            answers += [_answer(row, tokenizer) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]
    finally:
        tokenizer.padding_side = side
        model.train(training)
    return answers


def _answer(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    stopped = tokenizer.eos_token_id in ids
    kept = ids[: ids.index(tokenizer.eos_token_id)] if stopped else ids
    return Answer(tokenizer.decode(kept).strip(), stopped)


def stop_rate(answers: Sequence[Answer]) -> float:
    """Share of answers that the model ended by itself."""
    return sum(answer.stopped for answer in answers) / len(answers)


def accuracy(answers: Sequence[Answer], references: Sequence[str]) -> float:
    """Share of answers that equal their reference, character by character."""
    return sum(a.text == reference for a, reference in zip(answers, references, strict=True)) / len(references)
