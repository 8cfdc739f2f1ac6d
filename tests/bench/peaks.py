"""How near are plans to the peaks of real training steps on a CPU?

python -m tests.bench.peaks  # the default model, about ten minutes; writes tests/bench/peaks.csv
"""

import contextlib
import ctypes
import itertools
import multiprocessing
import sys
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from course_utils import loading, machine, memory
from course_utils.core import files

R = 16
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


def step(model: nn.Module, optimizer: torch.optim.Optimizer, micro_batch: int, length: int) -> None:
    """One step on tokens that mean nothing; the output lives until its end, as in most loops."""
    ids = torch.randint(2, 60, (micro_batch, length))
    output = model(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def measured(case: Case, model_id: str) -> dict[str, Any]:
    """The planned peak beside the measured one, in bytes: what lies there between steps, and what a step adds to it."""
    model = prepared(case, model_id)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    step(model, optimizer, 1, 8)  # so that the states are there
    with contextlib.suppress(OSError, AttributeError):  # what that step freed goes back to the system
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with memory.measure(interval=0.001) as peak:
        step(model, optimizer, case.micro_batch, case.length)
    found = int(memory.ledger(model, optimizer)["total"]) + peak.added
    attention = model.config._attn_implementation
    plan = memory.plan(model_id, precision=FORMATS[case.method], r=R, attention=attention, **asdict(case))
    error = round(100 * (plan.peak / found - 1), 1)
    return asdict(case) | {"planned_bytes": plan.peak, "measured_bytes": found, "error_percent": error}


def _work(case: Case, model_id: str, queue: Any) -> None:
    queue.put(measured(case, model_id))


def main(model_id: str, cases: list[Case]) -> pd.DataFrame:
    """A row for each case, each measured in a process of its own: memory that another freed would be used again."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for case in cases:
        queue = context.Queue()
        process = context.Process(target=_work, args=(case, model_id, queue))
        process.start()
        rows.append(queue.get())
        process.join()
        print(rows[-1], file=sys.stderr)
    return pd.DataFrame(rows).assign(model=model_id, machine=machine.describe())


if __name__ == "__main__":
    table = main("SmolLM2-135M-Instruct", CASES)
    files.write_whole(files.ROOT / "tests" / "bench" / "peaks.csv", table.to_csv(index=False))
    print(table.drop(columns=["model", "machine"]).to_string())
    errors = table["error_percent"].abs()
    print(f"{len(table)} cases: median error {errors.median():.1f} %, worst {errors.max():.1f} % (goal: 10 %)")
