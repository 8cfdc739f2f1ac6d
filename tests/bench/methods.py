"""How long is a step of QLoRA beside one of LoRA, when both take turns? `python -m tests.bench.methods`

Writes `data/figures/step_seconds.csv`, which notebooks 03 and 04 show: for each format that is computed in, the seconds
that each method took for the same two steps, round by round.
"""

from dataclasses import replace

import pandas as pd

from course_utils import machine
from course_utils.core import files
from tests.bench import speed

RECORD = files.data_dir() / "figures" / "step_seconds.csv"
ROUNDS = 9
SOURCE = "each round is the same two steps of 8 conversations by both, in turns; python -m tests.bench.methods"


def rounds(dtype: str, count: int = ROUNDS) -> pd.DataFrame:
    """A row for each round: `compute_dtype`, `round`, and the seconds of `LoRA` and `QLoRA`."""
    ours = replace(speed.CONVERSATIONS, **speed.VARIANTS["ours"], steps=count * speed.STEPS)
    kinds = {"LoRA": {"precision": dtype}, "QLoRA": {"precision": "nf4-dq", "compute_dtype": dtype}}
    seconds, _ = speed.in_turns({name: replace(ours, **kind) for name, kind in kinds.items()})
    found = pd.DataFrame(seconds).round(3)
    return found.assign(compute_dtype=dtype, round=range(1, count + 1))


def main() -> None:
    dtypes = ["fp32", "bf16"] if machine.has_native_bf16() else ["fp32"]
    found = pd.concat([rounds(dtype) for dtype in dtypes], ignore_index=True)
    found = found[["compute_dtype", "round", "LoRA", "QLoRA"]].assign(machine=machine.describe(), source=SOURCE)
    files.write_whole(RECORD, found.to_csv(index=False))
    print(found.assign(ratio=found["QLoRA"] / found["LoRA"]).drop(columns=["machine", "source"]).to_string())


if __name__ == "__main__":
    main()
