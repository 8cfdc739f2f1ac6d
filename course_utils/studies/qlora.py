"""Does QLoRA learn as much as LoRA on 16-bit weights, and as full fine-tuning? On conversations, over rates and seeds.

The rule, written down before the first run:

- An arm is a way of training in a number format. Three of them are ranked, at two learning rates each: full
  fine-tuning, LoRA, and QLoRA (a LoRA on NF4 with double quantization). Each enters with the rate whose mean loss on
  the validation conversations is lower at the last look; ties go to the lower rate. The test conversations choose
  nothing.
- The margin is a tenth of the loss that LoRA saves: that of the untrained fp32 model on the test conversations, less
  the mean of LoRA's at its rate, times a tenth, in nats per token.
- Two arms are compared by the difference of their test losses at the last look, seed by seed, with its 95 % interval
  (`intervals.paired`). An interval inside plus or minus the margin: equal. Else, its upper end below the margin: not
  worse. Its lower end above the margin: worse. All others: not decided.
- NF4 without double quantization, and FP4, are controls at one rate. They are compared at that rate with NF4 and double
  quantization.

All arms compute in fp32, see the same batches in the same order, and start their adapters alike, seed by seed.
The interval covers the seed alone: not another model, other data, other lengths of training, or other held-out texts.
"""

import time
from dataclasses import replace
from typing import Any

import pandas as pd
from torch import nn

from course_utils import evaluation, intervals, loading, training
from course_utils.chat import Example
from course_utils.studies import conversations, records
from course_utils.studies.conversations import CONVERSATIONS
from course_utils.studies.records import Study, grid
from course_utils.training import Recipe

LORA = replace(CONVERSATIONS, steps=40, lr=1e-3)
FULL = replace(LORA, adapter=None, lr=1e-4)
QLORA = replace(LORA, precision="nf4-dq", compute_dtype="fp32")
CONTROLS = [replace(QLORA, precision=precision) for precision in ("nf4", "fp4")]
SEEDS = [0, 1, 2, 3]
SCORING = {"looks": [20, 40], "margin": 0.1}  # the margin: a share of what LoRA saves
ARMS = {
    ("full", "fp32"): "full",
    ("lora", "fp32"): "LoRA",
    ("lora", "nf4-dq"): "QLoRA",
    ("lora", "nf4"): "NF4 without DQ",
    ("lora", "fp4"): "FP4",
}


def run(recipe: Recipe) -> dict[str, Any]:
    """Loss on the validation and test conversations after 20 and 40 steps; without training, once.

    Scores: `validation_nll` and `test_nll`, one entry a look, in nats per token; `test_nats`, for each look the sums
    of all test threads; `losses` and `tokens`; `step_seconds`, the median step.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    examples = conversations.encoded(tokenizer, recipe)
    watch = _Watch(training.prepare_model(recipe), examples)
    if not recipe.steps:
        watch.look()
        return watch.seen
    history = training.fit(watch.model, examples["train"], recipe, on_step=watch.on_step)
    return watch.seen | {
        "losses": [round(loss, 4) for loss in history.losses],
        "tokens": history.tokens,
        "step_seconds": round(float(pd.Series(watch.seconds).median()), 3),
    }


class _Watch:
    """Looks at a model on its way, and times the steps between: a look takes none of their time."""

    def __init__(self, model: nn.Module, examples: dict[str, list[Example]]) -> None:
        self.model, self.examples = model, examples
        self.seen: dict[str, list[Any]] = {}
        self.seconds: list[float] = []
        self.since = time.perf_counter()

    def on_step(self, step: int, _: float) -> None:
        self.seconds.append(time.perf_counter() - self.since)
        if step + 1 in SCORING["looks"]:
            self.look()
        self.since = time.perf_counter()

    def look(self) -> None:
        """Add one entry to every score."""
        each = {split: evaluation.nll_each(self.model, self.examples[split]) for split in ("validation", "test")}
        found = {f"{split}_nll": round(float(x["nats"].sum() / x["tokens"].sum()), 6) for split, x in each.items()}
        for name, value in (found | {"test_nats": each["test"]["nats"].round(4).tolist()}).items():
            self.seen.setdefault(name, []).append(value)


def _recipes() -> list[Recipe]:
    ranked = [*grid(FULL, lr=[3e-5, 1e-4], seed=SEEDS), *grid(LORA, lr=[3e-4, 1e-3], seed=SEEDS)]
    ranked += grid(QLORA, lr=[3e-4, 1e-3], seed=SEEDS)
    controls = [recipe for control in CONTROLS for recipe in grid(control, seed=SEEDS)]
    untrained = [replace(recipe, adapter=None, steps=0) for recipe in (LORA, QLORA, *CONTROLS)]
    return untrained + sorted(ranked + controls, key=lambda recipe: recipe.seed)


STUDY = Study("qlora", _recipes(), run, SCORING, ("conversations.jsonl",), minutes=4.5)


def looks() -> pd.DataFrame:
    """One row for each look at a model: `arm` ("untrained" for those that were not trained), `step`, and its scores.

    Columns: the recipe's fields, `arm`, `step`, `validation_nll`, `test_nll`, `losses`, `tokens`, `step_seconds`,
    `seconds`, `peak_bytes`.
    """
    runs = records.table("qlora")
    runs["arm"] = [ARMS.get((run.method, run.precision), "untrained") for run in runs.itertuples()]
    runs["step"] = [SCORING["looks"] if steps else [0] for steps in runs["steps"]]
    rows = runs.explode(["step", "validation_nll", "test_nll", "test_nats"]).reset_index(drop=True)
    return rows.astype({"step": int, "validation_nll": float, "test_nll": float})


def last_looks(rows: pd.DataFrame, arm: str, lr: float | None = None) -> pd.DataFrame:
    """The last look at each run of an arm, at a rate: by default the one that the validation conversations choose.

    Raises:
        ValueError: the arm has no runs, or none at that rate.
    """
    last = rows[(rows["arm"] == arm) & (rows["step"] == SCORING["looks"][-1])]
    if lr is None and not last.empty:
        lr = last.groupby("lr")["validation_nll"].mean().idxmin()  # ascending rates, and of equals it takes the first
    if (chosen := last[last["lr"] == lr]).empty:
        there = ", ".join(sorted({f"{one} at {rate:g}" for one, rate in zip(rows["arm"], rows["lr"], strict=True)}))
        raise ValueError(f"No runs of {arm!r}{f' at {lr:g}' if lr else ''}; there are: {there}.")
    return chosen


def margin(rows: pd.DataFrame) -> float:
    """Within how many nats per token two arms count as equal: a tenth of what LoRA saves."""
    untrained = rows[(rows["arm"] == "untrained") & (rows["precision"] == LORA.precision)]["test_nll"].item()
    return SCORING["margin"] * (untrained - float(last_looks(rows, "LoRA")["test_nll"].mean()))


def compared(rows: pd.DataFrame, arm: str, other: str, lr: float | None = None) -> pd.Series:
    """Two arms by the rule above: `difference` (arm minus other, nats per token), its `half`-width, and the `words`.

    Each arm is taken at the rate chosen for it, or both at `lr`.
    """
    difference, half = intervals.paired(last_looks(rows, arm, lr), last_looks(rows, other, lr), "test_nll")
    return pd.Series({"difference": difference, "half": half, "words": words(difference, half, margin(rows))})


def words(difference: float, half: float, margin: float) -> str:
    """What an interval says about a margin: equal, not worse, worse, or not decided."""
    low, high = difference - half, difference + half
    if -margin < low and high < margin:
        return "equal"
    if high < margin:
        return "not worse"
    return "worse" if low > margin else "not decided"
