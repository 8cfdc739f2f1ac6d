"""How far have the predictions moved from those before training?"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn

from course_utils.batches import Batch, check_examples, supervised_logits
from course_utils.chat import IGNORE, Example
from course_utils.core.mode import evaluating
from course_utils.evaluation.losses import like_lengths


@dataclass(frozen=True)
class Predictions:
    """What a model predicted for the labeled tokens of `examples`: log-probabilities, (tokens, vocabulary) a batch.

    They stay in memory: 4 bytes x tokens x vocabulary, 0.2 GB for 1,000 tokens of the default model.
    """

    examples: Sequence[Example]
    log_probs: list[torch.Tensor]


@torch.no_grad()
def predictions(model: nn.Module, examples: Sequence[Example]) -> Predictions:
    """To be compared later with those of the same model, trained; see `drift`.

    Raises:
        ValueError: there is no example.
    """
    check_examples(examples)
    with evaluating(model):
        return Predictions(examples, [_log_probs(model, batch)[0] for _, batch in like_lengths(examples)])


@torch.no_grad()
def drift(model: nn.Module, before: Predictions) -> pd.DataFrame:
    """Sums over the labeled tokens of each example, one row an example, in their order.

    Columns: `tokens`; `nats`, the loss of the tokens; `kl`, the divergence of the predictions from those before, nats,
    sum of KL(before || now), over the whole vocabulary; `same`, how often the likeliest token is the one it was.
    """
    rows = {}
    with evaluating(model):
        for (places, batch), old in zip(like_lengths(before.examples), before.log_probs, strict=True):
            new, targets = _log_probs(model, batch)
            measured = {
                "tokens": torch.ones(len(targets)),
                "nats": -new.gather(1, targets[:, None]).squeeze(1),
                "kl": (old.exp() * (old - new)).sum(dim=1),
                "same": (old.argmax(dim=1) == new.argmax(dim=1)).float(),
            }
            counts = (batch["labels"][:, 1:] != IGNORE).sum(dim=1).tolist()
            parts = {name: values.double().split(counts) for name, values in measured.items()}
            for index, place in enumerate(places):
                rows[place] = {name: split[index].sum().item() for name, split in parts.items()}
    return pd.DataFrame([rows[place] for place in range(len(rows))])


def _log_probs(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    logits, targets = supervised_logits(model, batch)
    return logits.float().log_softmax(dim=1).cpu(), targets.cpu()
