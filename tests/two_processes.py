"""Do two processes train like one? `python -m tests.two_processes` writes down by how much they differ.

The processes are started by torchrun on a CPU (gloo), with a tiny model; `test_two_processes.py` makes the same runs.
The record is `data/figures/two_processes.csv`, which notebook 04 shows.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

from course_utils.core import files
from course_utils.core.files import ROOT
from tests.conftest import tiny

RECORD = files.data_dir() / "figures" / "two_processes.csv"
SOURCE = "two CPU processes (torchrun, gloo) beside one, tiny model; python -m tests.two_processes"
LIMITS = {  # what rounding may do, and what half of the bytes may weigh
    "processes": 2,
    "first gradients": 1e-5,
    "first loss": 1e-5,
    "later losses": 1e-3,
    "update": 1e-2,
    "bytes in each, bf16": 0.525,
    "bytes in each, nf4-dq": 0.525,
}


def launched(count: int, script: str, *arguments: object) -> None:
    """Run a script of `tests/` in so many processes, of one thread each."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    command = [*launch, str(ROOT / "tests" / script), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **alone}, capture_output=True, text=True, timeout=400)
    if done.returncode:
        raise RuntimeError(done.stderr)


def trained(folder: Path, order: str) -> dict[str, float]:
    """Two processes with two examples each beside one with four: the same global batches, so the same training.

    `processes`: how many there were. The rest are differences: of the first step's gradients, relative to the largest
    of them; of losses; and of the trained adapter, relative to its update (Adam makes whole steps of rounding errors).
    """
    left = []
    for count in (1, 2):
        place = folder / f"{count}"
        place.mkdir(parents=True)
        launched(count, "sft_process.py", place, 4 // count, order)
        left.append(torch.load(place / "left.pt"))
    one, two = left
    apart = [abs(a - b) / abs(a) for a, b in zip(one["losses"], two["losses"], strict=True)]
    gradients = [flat(found["gradients"]) for found in left]
    update, moved = flat(one["after"]) - flat(one["before"]), flat(two["after"]) - flat(one["after"])
    assert (one["processes"], one["tokens"]) == (1, two["tokens"])
    return {
        "processes": two["processes"],
        "first gradients": float((gradients[1] - gradients[0]).abs().max() / gradients[0].abs().max()),
        "first loss": apart[0],
        "later losses": max(apart[1:]),
        "update": float(moved.norm() / update.norm()),
    }


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def spread(folder: Path) -> dict[str, dict[str, object]]:
    """What `fsdp_process.py` found when two processes had a part of the weights each, by number format."""
    tiny(hidden_size=64).save_pretrained(folder / "base")  # whole blocks in a row
    launched(2, "fsdp_process.py", folder)
    return torch.load(folder / "left.pt")


def measured(training: dict[str, float], spreading: dict[str, dict[str, object]]) -> pd.DataFrame:
    """The record: what was measured, and what it may be at most."""
    shares = {f"bytes in each, {name}": found["bytes"][1] / found["bytes"][0] for name, found in spreading.items()}
    rows = [(name, value, LIMITS[name], SOURCE) for name, value in (training | shares).items()]
    return pd.DataFrame(rows, columns=["quantity", "measured", "at_most", "source"])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = measured(trained(Path(folder) / "trained", "random"), spread(Path(folder)))
    files.write_whole(RECORD, found.to_csv(index=False, float_format="%.3g"))
    print(found.to_string())


if __name__ == "__main__":
    main()
