"""What does it cost now, in bytes? Live objects are added up exactly; peaks are measured on the process or the GPU."""

import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import psutil
import torch
from torch import nn

from course_utils import machine

MB = 1e6


@dataclass
class Peak:
    """Bytes in use before and at the highest point of a `measure()` block."""

    before: int = 0
    peak: int = 0

    @property
    def added(self) -> int:
        """Bytes that the block needed on top of what was there."""
        return max(0, self.peak - self.before)


@contextmanager
def measure(interval: float = 0.005) -> Iterator[Peak]:
    """Measure the peak memory of a block: `with measure() as peak: ...`, then `peak.added`, in bytes.

    With CUDA this is what torch allocated (exact), added up over all GPUs that this process sees; their peaks may lie
    at different moments, so the sum is a bound from above. Elsewhere it is the resident memory of this process, sampled
    every `interval` seconds (an estimate from below, and other threads count too). That holds for "mps" as well: torch
    keeps no peak there, and what Metal allocates may be missing. The peak is set when the block raises, too.
    """
    gc.collect()
    peak = Peak()
    if machine.device() == "cuda":
        gpus = range(torch.cuda.device_count())
        for gpu in gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        peak.before = peak.peak = sum(map(torch.cuda.memory_allocated, gpus))
        try:
            yield peak
        finally:
            peak.peak = sum(map(torch.cuda.max_memory_allocated, gpus))
        return
    process, stop = psutil.Process(os.getpid()), threading.Event()
    peak.before = peak.peak = process.memory_info().rss

    def sample() -> None:
        while not stop.wait(interval):
            peak.peak = max(peak.peak, process.memory_info().rss)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        peak.peak = max(peak.peak, process.memory_info().rss)
        stop.set()
        sampler.join()


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes that these tensors occupy, on any device; storage that several share (tied weights, views) counts once."""
    return sum(storage.nbytes() for storage in _storages(tensors).values())


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, torch.UntypedStorage]:
    """The distinct storages by identity: on the meta device all have address 0. They are kept, so no id comes twice."""
    storages: dict[int, torch.UntypedStorage] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[id(storage)] = storage
    return storages


def quantization_constants(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """The tensors that 4-bit parameters need beside their packed weights: scales, their own scales, and code tables.

    `model.get_memory_footprint()` leaves them out.
    """
    found = []
    for parameter in parameters:
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            found += [x for x in (state.absmax, state.code, state.offset) if isinstance(x, torch.Tensor)]
            state = state.state2
    return found


def row_scales(model: nn.Module) -> list[torch.Tensor]:
    """The scales of LLM.int8(), one float32 per output row; the first forward moves them from weight to layer."""
    layers = [module for module in model.modules() if hasattr(module, "weight") and hasattr(module, "state")]
    found = [getattr(holder, "SCB", None) for layer in layers for holder in (layer.weight, layer.state)]
    return [scales for scales in found if scales is not None]


def activation_bytes(model: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that `forward` keeps for the backward pass; parameters are not counted, shared storage counts once.

    On the meta device too, where nothing is computed and no memory is needed. Torch has no fused attention there, so
    "sdpa" counts what "eager" attention keeps.
    """
    parameters = _storages(model.parameters())
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.detach())  # the tensor itself would refer back to the graph, and neither would be freed
        return kept[-1]

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = forward()
    return sum(storage.nbytes() for key, storage in _storages(kept).items() if key not in parameters)


def ledger(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> pd.Series:
    """Bytes of everything that training keeps between steps, added up over the live objects.

    Rows: frozen weights, quantization constants, trainable weights, gradients, optimizer states, total. Gradients count
    when they exist, so call it after a backward pass. Activations live only within a step: see `measure`.
    """
    parameters = list(model.parameters())
    trainable = [p for p in parameters if p.requires_grad]
    states = [] if optimizer is None else [x for state in optimizer.state.values() for x in state.values()]
    rows = {
        "frozen weights": tensor_bytes(p for p in parameters if not p.requires_grad),
        "quantization constants": tensor_bytes([*quantization_constants(parameters), *row_scales(model)]),
        "trainable weights": tensor_bytes(trainable),
        "gradients": tensor_bytes(p.grad for p in parameters if p.grad is not None),
        "optimizer states": tensor_bytes(x for x in states if isinstance(x, torch.Tensor)),
    }
    return pd.Series({**rows, "total": sum(rows.values())}, name="bytes")


def count_parameters(model: nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters; a tied weight counts once, and a packed 4-bit weight with its real number of entries."""
    total = 0
    for parameter in model.parameters():
        if parameter.requires_grad or not trainable:
            state = getattr(parameter, "quant_state", None)
            total += parameter.numel() if state is None else state.shape.numel()
    return total


def as_table(**ledgers: pd.Series) -> str:
    """Ledgers side by side, in MB (10^6 bytes), as text; rows that are zero throughout are left out."""
    table = pd.DataFrame(ledgers) / MB
    return table[table.any(axis=1)].to_string(float_format="{:,.1f}".format)
