"""What does it cost in bytes? Live objects are added up exactly; peaks are measured on the process or the GPU."""

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

    On a GPU this is what torch allocated there (exact); else the resident memory of this process, sampled every
    `interval` seconds (an estimate from below, and other threads count too).
    """
    gc.collect()
    peak = Peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        peak.before = torch.cuda.memory_allocated()
        yield peak
        peak.peak = torch.cuda.max_memory_allocated()
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
    """Bytes that these tensors occupy; storage that several share (tied weights, views) counts once."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        key = storage.data_ptr() if tensor.device.type != "meta" else id(tensor)
        storages[(tensor.device, key)] = storage.nbytes()
    return sum(storages.values())


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


def activation_bytes(model: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that `forward` keeps for the backward pass; parameters are not counted, shared storage counts once."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}  # by address: the graph keeps what it saved alive, so no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would refer back to the graph, and neither would ever be freed

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = forward()
    return sum(kept.values())


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
        "quantization constants": tensor_bytes(quantization_constants(parameters)),
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
