"""Do the 4-bit layers of a model give back the weights that were packed?"""

import copy

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import nn


def check_restored(model: nn.Module) -> None:
    """Refuse a model whose 4-bit weights come back otherwise than they were packed.

    bitsandbytes 0.50.2 does so on CPUs with AVX512, without a word, where a matrix has rows of a multiple of 16
    numbers that are no whole number of blocks: 48 at a block size of 64, for one. Its kernel looks up the constants of
    the blocks as if each row began a new one. Laid out as a single row, the same bytes come back right, so the two
    readings of a layer are compared; layers with whole blocks in their rows are not affected, and cost nothing.

    Raises:
        ValueError: names the first such layer, the length of its rows and the size of its blocks.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, Linear4bit) or (state := layer.weight.quant_state) is None:
            continue
        if state.shape[-1] % state.blocksize and not _restored(layer.weight.data, state):
            where, rows = layer.weight.device.type.upper(), f"rows of {state.shape[-1]} numbers"
            raise ValueError(
                f"bitsandbytes restores the 4-bit weights of {name!r} wrongly on this {where}: its {rows} are no whole "
                f"number of blocks of {state.blocksize}. Load the model in 'bf16', 'fp32' or 'int8', or on a GPU."
            )


def _restored(packed: torch.Tensor, state: QuantState) -> bool:
    """Whether a matrix is the same numbers whether it is read row by row or as one row."""
    one_row = copy.copy(state)
    one_row.shape = torch.Size([1, state.shape.numel()])
    return torch.equal(dequantize_4bit(packed, state).flatten(), dequantize_4bit(packed, one_row).flatten())
