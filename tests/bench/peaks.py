"""How near are plans to the peaks of real training steps?

python -m tests.bench.peaks  # the default model on the CPU, about ten minutes; writes tests/bench/peaks.csv
python -m tests.bench.peaks --gpu  # 1.7 to 65 billion random weights, some minutes; writes tests/bench/peaks_gpu.csv
"""

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from course_utils import loading, machine, memory
from course_utils.core import files
from course_utils.memory import parts
from tests.bench import random_weights
from tests.bench.random_weights import step

HERE = files.ROOT / "tests" / "bench"
R = 16
KEYS = ("micro_batch", "length", "checkpointing")
FORMATS = {"full": "fp32", "lora": "fp32", "qlora": "nf4-dq"}


@dataclass(frozen=True)
class Case:
    """A training step: its method, sequences and tokens, and whether layers are computed twice."""

    method: str
    micro_batch: int
    length: int
    checkpointing: bool


CASES = [
    Case(method, micro_batch, length, checkpointing)
    for method, (micro_batch, length), checkpointing in itertools.product(FORMATS, ((1, 512), (4, 256)), (False, True))
]


def prepared(case: Case, model_id: str) -> nn.Module:
    """The model with what the case trains; QLoRA computes in bfloat16."""
    model = loading.load_model(model_id, FORMATS[case.method], compute_dtype=torch.bfloat16, device="cpu")
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if case.method == "full":
        return model.train()
    return get_peft_model(model, LoraConfig(r=R, target_modules="all-linear", task_type="CAUSAL_LM")).train()


# As QLoRA's paper trained its largest model, but with one sequence a step.
LLAMA_65B = memory.Settings(
    model="LLaMA-65B", method="qlora", r=64, adapter_precision="bf16", optimizer="paged_adamw", checkpointing=True
)
ON_GPU = [
    memory.Settings(model=model, method=method, micro_batch=micro_batch, length=length, checkpointing=checkpointing)
    for model, method, (micro_batch, length), checkpointing in itertools.product(
        ("SmolLM2-1.7B", "Llama-3.2-3B", "Llama-3-8B"), ("lora", "qlora"), ((1, 512), (4, 1024)), (False, True)
    )
] + [LLAMA_65B]


def tokens(micro_batch: int, length: int) -> torch.Tensor:
    """Some that mean nothing."""
    return torch.randint(2, 60, (micro_batch, length))


def measured(case: Case, model_id: str) -> dict[str, Any]:
    """The planned peak beside the measured one, in bytes: what lies there between steps, and what a step adds to it."""
    model = prepared(case, model_id)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    step(model, optimizer, tokens(1, 8))  # so that the states are there
    with contextlib.suppress(OSError, AttributeError):  # what that step freed goes back to the system
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with memory.measure(interval=0.001) as peak:
        step(model, optimizer, tokens(case.micro_batch, case.length))
    found = int(memory.ledger(model, optimizer)["total"]) + peak.added
    attention = model.config._attn_implementation
    plan = memory.plan(model_id, precision=FORMATS[case.method], r=R, attention=attention, **asdict(case))
    return asdict(case) | beside(plan.peak, found)


def beside(planned: int, found: int) -> dict[str, Any]:
    """The two peaks in bytes, and the error of the plan."""
    error = round(100 * (planned / found - 1), 1)
    return {"planned_bytes": planned, "measured_bytes": found, "error_percent": error}


def _work(case: Case, model_id: str, queue: Any) -> None:
    queue.put(measured(case, model_id))


def main(model_id: str, cases: list[Case], given_back: bool) -> pd.DataFrame:
    """A row for each case, each measured in a process of its own: memory that another freed would be used again.

    By default the C library (glibc) keeps a part of what was freed, for later, and the system counts it as used. With
    `given_back`, blocks of 64 KiB and more go back to the system at once, so that what counts is what tensors take.
    """
    context = multiprocessing.get_context("spawn")
    rows = []
    for case in cases:
        queue = context.Queue()
        process = context.Process(target=_work, args=(case, model_id, queue))
        with mock.patch.dict(os.environ, {"MALLOC_MMAP_THRESHOLD_": str(2**16)} if given_back else {}):
            process.start()
        rows.append(queue.get())
        process.join()
        print(rows[-1], file=sys.stderr)
    return pd.DataFrame(rows).assign(given_back=given_back, model=model_id, machine=machine.describe())


def main_gpu(cases: list[memory.Settings], device: str = "cuda") -> pd.DataFrame:
    """A row for each plan, one after the other in this process: what torch allocates does not depend on the others.

    But for the workspace of cuBLAS, some 40 MB, which the first one brings along.
    """
    names, rows = ("model", "method", "precision", "r", "adapter_precision", "optimizer", *KEYS), []
    for settings in cases:
        losses, found = random_weights.train(settings, device)
        row = {name: getattr(settings, name) for name in names} | beside(parts.costs(settings).peak, found)
        rows.append(row | {"first_loss": losses[0], "last_loss": losses[-1]})
        print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows).assign(machine=machine.describe())


def record(tables: list[pd.DataFrame], name: str) -> None:
    """Write tables as one beside this file, and print each with its errors."""
    files.write_whole(HERE / name, pd.concat(tables).to_csv(index=False))
    for table in tables:
        print(table.drop(columns="machine").to_string())
        errors = table["error_percent"].abs()
        print(f"{len(table)} cases: median error {errors.median():.1f} %, worst {errors.max():.1f} % (goal: 10 %)")


if __name__ == "__main__":
    if "--gpu" in sys.argv[1:]:
        record([main_gpu(ON_GPU)], "peaks_gpu.csv")
    else:
        record([main("SmolLM2-135M-Instruct", CASES, given_back) for given_back in (False, True)], "peaks.csv")
