"""How does a model answer faster without answering otherwise? With each layer's weights unpacked and added up once."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer
from torch import nn


@contextmanager
def plain_layers(model: nn.Module) -> Iterator[None]:
    """While it lasts, an ordinary linear layer stands for each 4-bit layer and, in fp32, for each LoRA layer as well.

    A 4-bit weight is unpacked once instead of for every token: the same numbers. LoRA's product is added to its weight
    in fp32 alone, where that changes the last digits; in 16 bits small updates would be lost. Other layers stay, and
    all of them do where the plain weights would take more than half of the free memory. The model's own layers are not
    touched, and are back in their places afterwards.
    """
    first = next(model.parameters())
    places = list(_places(model, first.dtype))
    needed = sum(layer.in_features * layer.out_features * first.itemsize for *_, layer in places)
    if 2 * needed > _free_bytes(first.device):
        places = []
    try:
        for parent, name, layer in places:
            setattr(parent, name, _plain(layer))
        yield
    finally:
        for parent, name, layer in places:
            setattr(parent, name, layer)


def _places(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """The layers to replace, each with its parent and its name there; `dtype` is that of what they are given."""
    for name, child in model.named_children():
        if _can_be_plain(child, dtype):
            yield model, name, child
        elif not (isinstance(child, LoraLayer) and child.merged_adapters and child.disable_adapters):
            yield from _places(child, dtype)  # else PEFT unmerges, which needs the layer inside as it is


def _can_be_plain(layer: nn.Module, dtype: torch.dtype) -> bool:
    base = layer.base_layer if isinstance(layer, LoraLayer) else layer
    packed = type(base) is Linear4bit and base.compute_dtype == dtype and _as_stored(base.weight.quant_state)
    if base is layer:
        return packed
    special = layer.lora_variant or layer.merged_adapters or layer.disable_adapters or any(layer.lora_bias.values())
    fp32 = packed or (type(base) is nn.Linear and base.weight.dtype == torch.float32)
    return dtype == torch.float32 and fp32 and not special


def _as_stored(state: QuantState | None) -> bool:
    """Whether a weight is quantized, and not packed anew by bitsandbytes for its kernel for AVX512-BF16."""
    return state is not None and not getattr(state, "packing_format_for_cpu", False)


def _plain(layer: nn.Module) -> nn.Linear:
    base = layer.base_layer if isinstance(layer, LoraLayer) else layer
    weight = base.weight.data
    if isinstance(base, Linear4bit):
        weight = dequantize_4bit(weight, base.weight.quant_state).to(base.compute_dtype)
    if base is not layer:
        for adapter in set(layer.active_adapters) & set(layer.lora_A):
            weight = weight + layer.get_delta_weight(adapter)
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), base.bias
    return plain


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
