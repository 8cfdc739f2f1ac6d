"""Is what I ship what I trained? The saved adapter against the one in memory, and a merged model against both."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import kl_div, log_softmax

from course_utils.batches import collate, supervised_logits
from course_utils.chat import Example
from course_utils.core.mode import evaluating
from course_utils.loading.adapters import WEIGHTS
from course_utils.training.traps import Finding

MARGIN = 0.01  # nats per token: rounding stays far below it, also that of a merge in 16 bits


def check_shipped(
    trained: PeftModel,
    folder: str | Path,
    *,
    merged: nn.Module | None = None,
    examples: Sequence[Example] = (),
) -> list[Finding]:
    """The traps on the way from a trained model to one that is used; an empty list if there is none.

    Args:
        trained: the model with its adapter, as training left it.
        folder: where the adapter was saved.
        merged: a model into which the adapter was merged. It should predict what `trained` predicts, and does not if
            it was merged into other weights than those that the adapter was trained on, or rounded away.
        examples: with labels, on which the two are compared; a few are enough.

    Raises:
        ValueError: a merged model is to be checked without examples.
    """
    findings = []
    if problem := _not_saved(trained, Path(folder)):
        findings.append(Finding("adapter_not_saved", problem))
    if merged is not None:
        apart = _divergence(trained, merged, examples)
        if not apart <= MARGIN:
            findings.append(Finding("wrong_base", f"{apart:.3g} nats per token from the model with its adapter"))
    return findings


def _not_saved(trained: PeftModel, folder: Path) -> str | None:
    """What is wrong with the file: it is not there, or holds other weights than the active adapter's."""
    path = folder / WEIGHTS
    if not path.is_file():
        return f"{folder.name} has no {WEIGHTS}"
    try:
        saved = load_file(path)
    except SafetensorError as error:
        return f"{folder.name}, {WEIGHTS} was not written to its end ({error})"
    own = get_peft_model_state_dict(trained, adapter_name=trained.active_adapter, save_embedding_layers=False)
    same = [name for name, value in own.items() if name in saved and torch.equal(saved[name].to(value), value)]
    return f"{folder.name}, {len(own) - len(same)} of {len(own)} weights" if len(same) < len(own) else None


@torch.no_grad()
def _divergence(trained: nn.Module, merged: nn.Module, examples: Sequence[Example]) -> float:
    """KL(trained || merged) in nats, the mean over the labeled tokens; both models are left in their modes."""
    batch = collate(examples)
    with evaluating(trained), evaluating(merged):
        ours, theirs = (
            log_softmax(supervised_logits(model, batch)[0].float().cpu(), dim=1) for model in (trained, merged)
        )
    return kl_div(theirs, ours, log_target=True, reduction="batchmean").item()
