"""A process of `test_gpu_memory.test_paged_states...`: python -m tests.paged_process PagedAdamW, or PagedAdamW8bit.

Prints JSON. The states of a paged optimizer lie in managed memory, which the driver moves between GPU and CPU. torch
knows nothing of it, and bitsandbytes never frees it and ends the process where there is none: so a process of its own.

The cap is torch's own, far below what the GPU has. A GPU that is really full beside managed memory is left out: to ask
for more managed memory than is free can hang a GPU.
"""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import bitsandbytes as bnb
import torch
from torch import nn

from course_utils import machine, memory

WIDTH, LAYERS = 8192, 4
LENGTHS = (256, 256, 16_384, 256, 256)  # tokens of each step; the third is the spike


def pages(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The states that may leave the GPU: those of at least 100,000 numbers."""
    states = [value for state in optimizer.state.values() for value in state.values()]
    return [value for value in states if getattr(value, "is_paged", False)]


def train(kind: str, width: int, lengths: Sequence[int], device: str) -> dict[str, Any]:
    """What steps on sequences of these lengths left: losses, seconds, a sum over all weights; bytes of torch and pages.

    After each step the CPU reads the pages, which brings them to its memory. The run ends where memory is not enough.
    """
    torch.manual_seed(0)
    found: dict[str, Any] = {"losses": [], "seconds": []}
    with memory.measure() as peak, contextlib.suppress(torch.OutOfMemoryError):
        layers = nn.Sequential(*(nn.Linear(width, width, device=device) for _ in range(LAYERS)))
        optimizer = getattr(bnb.optim, kind)(layers.parameters(), lr=1e-4)
        for length in lengths:
            start = time.perf_counter()
            x = torch.randn(length, width, device=device)
            loss = (layers(x) - x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found["losses"].append(loss.item())
            found["seconds"].append(round(time.perf_counter() - start, 3))
            del x, loss
            for page in pages(optimizer):
                page.sum()
        found["weights"] = sum(p.detach().double().sum().item() for p in layers.parameters())
        found["paged"] = sum(page.nbytes for page in pages(optimizer))
        found["held"] = torch.cuda.memory_allocated() - peak.before
    return found | {"peak": peak.added}


def main(paged: str) -> dict[str, Any]:
    """Unpaged without a cap; then, under a cap that its spike does not fit by a quarter of the states, both of them."""
    unpaged, device = paged.removeprefix("Paged"), "cuda"
    train(unpaged, WIDTH, LENGTHS[:1], device)  # cuBLAS and the kernels load
    roomy = train(unpaged, WIDTH, LENGTHS, device)
    gc.collect()
    torch.cuda.empty_cache()
    states = LAYERS * WIDTH**2 * (2 if "8bit" in paged else 8)
    room = roomy["peak"] - states // 4
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / total)
    capped = {name: train(kind, WIDTH, LENGTHS, device) for name, kind in (("stopped", unpaged), ("paged", paged))}
    return {"states": states, "room": room, "machine": machine.describe(), "roomy": roomy, **capped}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
