"""Is it better, and what did it forget? Losses on held-out text, generated answers, and whether they stop."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils.batches import collate, collate_prompts, token_losses
from course_utils.chat import TEMPLATES, Example, Turn, encode_prompt, encode_text, end_id, normalized, text_problem


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of held-out tokens: `nats` in all, over `tokens` tokens.

    A model that has gone NaN has `nats` NaN, and so have mean and perplexity.

    Raises:
        ValueError: no tokens, so there is no mean.
    """

    nats: float
    tokens: int

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(
                "No token was scored, so there is no loss. Pass at least one example with a label other than -100 "
                "after its first token; chat.encode_all says on stderr how many threads it leaves out, and why."
            )

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean: the number of equally likely tokens that the model hesitates between."""
        return math.inf if self.mean > 709 else math.exp(self.mean)  # e**710 is no float


@dataclass(frozen=True)
class Answer:
    """A generated answer; `stopped` says whether the model ended it itself, rather than the length limit."""

    text: str
    stopped: bool


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode and the model's device; afterwards every layer is in the mode it was in, errors or not."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield next(model.parameters()).device
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def nll(model: nn.Module, examples: Sequence[Example], batch_size: int = 8) -> NLL:
    """Loss of the labeled tokens of `examples`, summed. The model is left in the mode it was in.

    Raises:
        ValueError: no example has a label to score.
    """
    by_length = sorted(examples, key=lambda example: len(example["input_ids"]))  # little padding
    nats, tokens = 0.0, 0
    with _evaluating(model):
        for start in range(0, len(by_length), batch_size):
            losses = token_losses(model, collate(by_length[start : start + batch_size])).cpu()
            nats += losses.double().sum().item()  # on the CPU, because Apple's GPUs have no float64
            tokens += losses.numel()
    return NLL(nats, tokens)


def general_nll(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, passages: Sequence[str], max_length: int = 256
) -> NLL:
    """Loss on general text that no fine-tuning set holds; what it gains over the base model's is forgetting.

    Args:
        passages: `datafiles.load_passages()`, or other text in the style of pretraining.
        max_length: in tokens per passage; what lies beyond is cut off.

    Raises:
        ValueError: no passages, or one that is not text.
    """
    if isinstance(passages, str) or not passages:
        raise ValueError(
            "passages is no list of texts, or empty: pass datafiles.load_passages(), or a list of your own."
        )
    for number, passage in enumerate(passages):
        if problem := text_problem(passage):
            raise ValueError(f"Passage {number} (counted from 0) {problem}")
    return nll(model, [encode_text(passage, tokenizer, max_length) for passage in passages])


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
    """The model's greedy answer to each thread (turns that end with the user's); none to no threads.

    Prompts are padded on the left, so that every answer starts right behind its prompt. The model is left in the mode
    it was in, the tokenizer is not changed.

    Raises:
        ValueError: as `chat.encode`, naming the thread.
    """
    end, answers = end_id(tokenizer, template), []
    checked = [normalized(thread, TEMPLATES[template].heads, index) for index, thread in enumerate(threads)]
    prompts = [encode_prompt(thread, tokenizer, template) for thread in checked]
    pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    with _evaluating(model) as device:
        for start in range(0, len(prompts), batch_size):
            batch = collate_prompts(prompts[start : start + batch_size], pad)
            asked = {name: tensor.to(device) for name, tensor in batch.items()}
            output = model.generate(
                **asked,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                repetition_penalty=1.0,  # some models bring another one
                eos_token_id=end,
                pad_token_id=pad,
            )
            answers += [_answer(row, end, tokenizer) for row in output[:, asked["input_ids"].shape[1] :].tolist()]
    return answers


def _answer(ids: list[int], end: int, tokenizer: PreTrainedTokenizerBase) -> Answer:
    stopped = end in ids
    return Answer(tokenizer.decode(ids[: ids.index(end)] if stopped else ids).strip(), stopped)


def stop_rate(answers: Sequence[Answer]) -> float:
    """Share of answers that the model ended by itself.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("The list of answers is empty: pass what evaluation.generate returns for one thread or more.")
    return sum(answer.stopped for answer in answers) / len(answers)


def accuracy(answers: Sequence[Answer], references: Sequence[str]) -> float:
    """Share of answers that equal their reference, character by character.

    Raises:
        ValueError: no answers, or not one reference for each.
    """
    if not answers or len(answers) != len(references):
        raise ValueError(
            f"The numbers of answers ({len(answers)}) and references ({len(references)}) have to be equal and not 0: "
            "pass one reference for each answer."
        )
    return sum(a.text == reference for a, reference in zip(answers, references, strict=True)) / len(references)
