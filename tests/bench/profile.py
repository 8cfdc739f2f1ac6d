"""Where does the time of a training step go, and how does it grow with length and batch?

python -m tests.bench.profile        # fp32
python -m tests.bench.profile bf16
"""

import json
import math
import sys
import timeit
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from course_utils import machine, training
from course_utils.batches import collate, supervised_loss
from course_utils.chat import IGNORE, Example
from course_utils.core import files
from course_utils.studies.conversations import CONVERSATIONS
from course_utils.training.fast import fast_step

GROUPS = {  # what an operator of torch does in this model; the rest is "other"
    "matrix products": ("aten::mm", "aten::addmm"),
    "attention": ("aten::bmm", "aten::_softmax", "scaled_dot_product"),
    "loss": ("aten::_log_softmax", "aten::nll_loss"),
    "copies and casts": ("aten::copy_", "aten::fill_", "aten::cat", "aten::clone"),
    "multiplying": ("aten::mul",),
    "adding": ("aten::add", "aten::sum"),
    "optimizer": ("Optimizer",),  # with all that happens inside of it
}
LENGTHS, BATCH_SIZES = (64, 128, 256, 512, 1024), (1, 2, 4, 8, 16, 32)
SUPERVISED = 0.69  # of the tokens, as in the course's conversations
SHAPES = ((576, 1536), (1536, 576), (576, 576))  # of the default model's matrices


def made(batch_size: int, length: int) -> dict[str, torch.Tensor]:
    """A batch without padding; what the tokens are does not matter to the time."""
    ids = torch.randint(10, 40_000, (length,)).tolist()
    masked = round(length * (1 - SUPERVISED))
    example: Example = {"input_ids": ids, "labels": [IGNORE] * masked + ids[masked:]}
    return collate([example] * batch_size)


def stepper(precision: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """A function that makes one training step as the course makes it."""
    model = training.prepare_model(replace(CONVERSATIONS, precision=precision)).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)

    def step(batch: dict[str, torch.Tensor]) -> None:
        with fast_step(model, batch["input_ids"].shape[1]):
            loss = supervised_loss(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Callable[[Any], None], batch: dict[str, torch.Tensor], repeats: int = 3) -> float:
    step(batch)
    return median(timeit.repeat(lambda: step(batch), number=1, repeat=repeats))


def shares(step: Callable[[Any], None], batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """The share of each group of operators in the time of one step."""
    step(batch)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step(batch)
    spent = dict.fromkeys([*GROUPS, "other"], 0.0)
    for event in found.events():
        spent[group_of(event)] += event.self_cpu_time_total
    return {group: time / sum(spent.values()) for group, time in spent.items()}


def group_of(event: FunctionEvent) -> str:
    """What an operator of the profile belongs to."""
    above: FunctionEvent | None = event
    while above:
        if above.name.startswith("Optimizer.step"):
            return "optimizer"
        above = above.cpu_parent
    return next((group for group, names in GROUPS.items() if any(name in event.name for name in names)), "other")


def flops(step: Callable[[Any], None], batch: dict[str, torch.Tensor]) -> int:
    """Arithmetic of the matrix products of one step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return counter.get_total_flops()


def peak(precision: str, rows: int) -> float:
    """FLOP/s of the model's matrix shapes, each alone."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    done = time = 0.0
    for width, out in SHAPES:
        values, matrix = torch.randn(rows, width).to(dtype), torch.randn(width, out).to(dtype)
        time += min(timeit.repeat(lambda v=values, m=matrix: v @ m, number=3, repeat=5)) / 3
        done += 2 * rows * width * out
    return done / time


def exponent(sizes: tuple[int, ...], times: list[float]) -> float:
    """p of time ~ size**p between the two largest sizes."""
    return math.log(times[-1] / times[-2]) / math.log(sizes[-1] / sizes[-2])


def main(precision: str = "fp32") -> None:
    step, batch = stepper(precision), made(8, 124)
    given_back = seconds(step, batch, 5)  # freed memory goes back to the system, as by default
    machine.keep_freed_memory()
    found: dict[str, Any] = {"precision": precision, "machine": machine.describe(), "shares": shares(step, batch)}
    found |= {"step_seconds": seconds(step, batch, 5), "step_flops": flops(step, batch)}
    found["step_seconds_in_a_notebook"] = given_back
    found["peak_flops"] = peak(precision, batch["input_ids"].numel())
    lengths = [
        (length, seconds(step, made(4, length), 1), shares(step, made(4, length))["attention"]) for length in LENGTHS
    ]
    sizes = [(size, seconds(step, made(size, 128), 1)) for size in BATCH_SIZES]
    found |= {"lengths": lengths, "batch_sizes": sizes}
    files.write_whole(files.ROOT / "build" / f"profile_{precision}.json", json.dumps(found, indent=1))
    show(found)


def show(found: dict[str, Any]) -> None:
    """The shares, the growth of cost, and how near the matrix products come to what the machine can do."""
    console = Console()
    for title, lines in (
        ("part of a step of 8 x 124 tokens", [(group, f"{share:.0%}") for group, share in found["shares"].items()]),
        ("length, batch of 4", [(f"{n}", f"{time:.2f} s, attention {a:.0%}") for n, time, a in found["lengths"]]),
        ("batch size, 128 tokens each", [(f"{size}", f"{time:.2f} s") for size, time in found["batch_sizes"]]),
    ):
        table = Table(title, found["precision"])
        for line in lines:
            table.add_row(*line)
        console.print(table)
    done = found["step_flops"] / found["step_seconds"]
    console.print(f"{done / 1e12:.2f} TFLOP/s in the step; its shapes alone: {found['peak_flops'] / 1e12:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
