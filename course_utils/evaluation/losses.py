"""How well does it predict held-out text? In nats per token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils.batches import collate, token_losses
from course_utils.chat import Example, encode_text, text_problem
from course_utils.evaluation.mode import evaluating


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


@torch.no_grad()
def nll(model: nn.Module, examples: Sequence[Example], batch_size: int = 8) -> NLL:
    """Loss of the labeled tokens of `examples`, summed. The model is left in the mode it was in.

    Raises:
        ValueError: no example has a label to score.
    """
    by_length = sorted(examples, key=lambda example: len(example["input_ids"]))  # little padding
    nats, tokens = 0.0, 0
    with evaluating(model):
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
