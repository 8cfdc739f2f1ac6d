"""How well does it predict held-out text? In nats per token."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils.batches import Batch, collate, token_losses
from course_utils.chat import IGNORE, Example, encode_text, text_problem
from course_utils.core.mode import evaluating

BATCH_SIZE = 8


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
        """Exp of the mean, the number of equally likely tokens that the model hesitates between."""
        return math.inf if self.mean > 709 else math.exp(self.mean)  # e**710 is no float


def nll(model: nn.Module, examples: Sequence[Example], batch_size: int = BATCH_SIZE) -> NLL:
    """Loss of the labeled tokens of `examples`, summed. The model is left in the mode it was in.

    Raises:
        ValueError: no example has a label to score.
    """
    each = nll_each(model, examples, batch_size)
    return NLL(float(each["nats"].sum(skipna=False)), int(each["tokens"].sum()))


@torch.no_grad()
def nll_each(model: nn.Module, examples: Sequence[Example], batch_size: int = BATCH_SIZE) -> pd.DataFrame:
    """Sums over the labeled tokens of each example, one row an example, in their order: `nats` of loss and `tokens`."""
    rows = {}
    with evaluating(model):
        for places, batch in like_lengths(examples, batch_size):
            losses = token_losses(model, batch).cpu().double()  # on the CPU, because Apple's GPUs have no float64
            counts = (batch["labels"][:, 1:] != IGNORE).sum(dim=1).tolist()
            for place, part in zip(places, losses.split(counts), strict=True):
                rows[place] = {"nats": part.sum().item(), "tokens": len(part)}
    return pd.DataFrame([rows[place] for place in range(len(rows))], columns=["nats", "tokens"])


def like_lengths(examples: Sequence[Example], batch_size: int = BATCH_SIZE) -> Iterator[tuple[list[int], Batch]]:
    """The places of the examples of each batch, and the batch; like lengths together, which saves padding."""
    by_length = sorted(range(len(examples)), key=lambda place: len(examples[place]["input_ids"]))
    for start in range(0, len(by_length), batch_size):
        places = by_length[start : start + batch_size]
        yield places, collate([examples[place] for place in places])


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
