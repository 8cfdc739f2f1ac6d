"""Is it in evaluation mode while it is measured, and afterwards as it was before?"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode and the model's device; afterwards every layer is in the mode it was in, errors or not."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield next(model.parameters()).device
    finally:
        for module, training in modes:
            module.training = training
