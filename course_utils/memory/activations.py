"""What does a forward pass keep for the backward pass, layer by layer?"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from course_utils.memory.frameworks import Kept
from course_utils.memory.measured import _storages
from course_utils.memory.skeleton import Skeleton


class _Attention(torch.autograd.Function):
    """Fused attention keeps its inputs, its output, and one 32-bit number for each query."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        batch, heads, length, _ = query.shape
        out = query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)  # as the kernels lay it out
        ctx.save_for_backward(query, key, value, out, query.new_empty(batch, heads, length, dtype=torch.float32))
        return out


class _Dropout(torch.autograd.Function):
    """Fused dropout keeps a mask of one byte a number."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(torch.empty_like(x, dtype=torch.bool))
        return torch.empty_like(x)


class AsOnGPU(TorchFunctionMode):
    """The meta device has neither of these fused operations; without them it would count what no GPU keeps.

    It has no values either. What transformers asks of them is whether a batch has no padding, and is not packed.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__:
            return True
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*args[:3])
        if func is F.dropout and kwargs["training"] and kwargs["p"]:
            return _Dropout.apply(*args)
        return func(*args, **(kwargs or {}))


def count(skeleton: Skeleton, batch: int, length: int) -> Kept:
    """Counted on the meta device, where the model's own code runs and nothing is computed.

    Weights are not counted, and storage that several tensors share counts once, where it is first kept.
    """
    weights = _storages([*skeleton.model.parameters(), *skeleton.model.buffers()])
    kept: dict[int, torch.UntypedStorage] = {}
    layers = list(skeleton.layers)
    found, inputs = [0] * len(layers), [0] * len(layers)
    rest, inside = 0, None

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal rest
        storage = tensor.untyped_storage()
        if id(storage) not in weights and id(storage) not in kept:
            kept[id(storage)] = storage
            if inside is None:
                rest += storage.nbytes()
            else:
                found[inside] += storage.nbytes()
        return tensor

    def enter(layer: nn.Module, seen: tuple[Any, ...]) -> None:
        nonlocal inside
        inside = layers.index(layer)
        inputs[inside] = seen[0].nbytes

    def leave(*_: Any) -> None:
        nonlocal inside
        inside = None

    hooks = [h for x in layers for h in (x.register_forward_pre_hook(enter), x.register_forward_hook(leave))]
    ids = torch.ones(batch, length, dtype=torch.long, device="meta")
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), AsOnGPU():
            _ = skeleton.model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    total = sum(each * n for each, n in zip(found, skeleton.times, strict=True))
    return Kept(total, max(found), sum(each * n for each, n in zip(inputs, skeleton.times, strict=True)), rest)
