"""How near do plans come to peaks that others measured and published?"""

import pandas as pd

from course_utils import datafiles
from course_utils.memory.parts import costs
from course_utils.memory.settings import Settings

UNITS = {"GB": 1e9, "GiB": 2**30, "MB": 1e6}


def published_peaks() -> pd.DataFrame:
    """The rows of `data/figures/peak_memory.csv` that can be planned, each beside its plan.

    Left out is what the planner has no setting for (`beyond_the_planner`), and what does not name shape, micro-batch,
    length, rank and checkpointing. Adds the columns `planned`, in the unit of the row, and `error_percent`, which is
    missing where the published run ran out of memory. A row marked `partial` leaves open what stands in `not_stated`;
    it is planned with the settings that it names, and the longest text that it allows.
    """
    table = datafiles.load_figures("peak_memory")
    full = table["method"].str.startswith("full")
    needed = table[["preset", "micro_batch", "length_tokens", "checkpointing"]].notna().all(axis=1)
    found = table[table["beyond_the_planner"].isna() & needed & (full | table["r"].notna())].copy()
    found["planned"] = [costs(settings_of(row)).peak / UNITS[row["unit"]] for _, row in found.iterrows()]
    found["error_percent"] = 100 * (found["planned"] / found["peak"] - 1)
    return found


def settings_of(row: pd.Series) -> Settings:
    """The settings of a published row."""
    method = "full" if row["method"].startswith("full") else "qlora" if row["method"].startswith("QLoRA") else "lora"
    adapter = {}
    if method != "full":
        targets = row["targets"] if row["targets"] == "all-linear" else tuple(row["targets"].split())
        adapter = {"r": int(row["r"]), "target_modules": targets}
    return Settings(
        model=row["preset"],
        method=method,
        precision=row["precision"],
        optimizer=row["optimizer"],
        micro_batch=int(row["micro_batch"]),
        length=int(row["length_tokens"]),
        accumulation=1 if pd.isna(row["accumulation"]) else int(row["accumulation"]),
        checkpointing=row["checkpointing"] == "yes",
        chunked_loss=row["chunked_loss"] == "yes",
        attention="eager" if "eager" in row["device_or_note"] else "sdpa",
        gpus=int(row["gpus"]),
        sharding="fsdp" if row["gpus"] > 1 else "ddp",
        framework=row["framework"],
        gpu_gb=None if pd.isna(row["gpu_gb"]) else float(row["gpu_gb"]),
        **adapter,
    )
