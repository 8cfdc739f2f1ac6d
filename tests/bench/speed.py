"""How fast is a training step, beside stock TRL and a plain PEFT loop, in one interleaved run?

Every variant trains in a process of its own, and they take turns: two steps each, in three rounds, so that a machine
that is slow for a while is slow for all. All of them train once on the same conversations.
"""

import multiprocessing
import sys
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import torch

from course_utils import batches, loading, machine, memory, studies
from course_utils.studies import conversations, equal_quality
from course_utils.studies.equal_quality import VARIANTS
from course_utils.training import Recipe

ROUNDS, STEPS = 3, 2  # a round is so many steps of each variant
KINDS = {  # dtype and method of a row, and the fields of the recipe that make it
    ("fp32", "lora"): {"precision": "fp32"},
    ("bf16", "lora"): {"precision": "bf16"},
    ("bf16", "qlora"): {"precision": "nf4-dq", "compute_dtype": "bf16"},
}
CONVERSATIONS = replace(conversations.CONVERSATIONS, steps=ROUNDS * STEPS)


@dataclass(frozen=True)
class Row:
    """One variant. Speeds are tokens in all, without padding, over seconds in all; bytes are of the whole process."""

    variant: str
    dtype: str
    method: str
    tokens_per_second: float
    supervised_tokens_per_second: float
    round_seconds: list[float]
    peak_bytes: int
    heldout_nll: float | None
    machine: str


def measure(dtype: str, method: str, variants: tuple[str, ...] = tuple(VARIANTS)) -> list[Row]:
    """The rows of one dtype and method, whose variants take turns."""
    recipes = {name: replace(CONVERSATIONS, **VARIANTS[name], **KINDS[dtype, method]) for name in variants}
    seconds, ends = in_turns(recipes)
    rows = []
    for variant, found in ends.items():
        spent = sum(seconds[variant])
        rows.append(
            Row(
                variant,
                dtype,
                method,
                tokens_per_second=round(found["tokens"] / spent, 1),
                supervised_tokens_per_second=round(found["supervised"] / spent, 1),
                round_seconds=[round(each, 2) for each in seconds[variant]],
                peak_bytes=found["peak_bytes"],
                heldout_nll=heldout_nll(variant, dtype) if method == "lora" else None,
                machine=machine.describe(),
            )
        )
    return rows


def in_turns(recipes: dict[str, Recipe]) -> tuple[dict[str, list[float]], dict[str, dict[str, int]]]:
    """Train each recipe in a process of its own; in each round, every one makes `STEPS` steps, one after the other.

    Returns the seconds of each in each round, and the tokens, supervised tokens and peak bytes of each.
    """
    context = multiprocessing.get_context("spawn")
    workers = {}
    for name, recipe in recipes.items():
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(recipe, there), daemon=True)
        process.start()
        here.recv()  # it is ready: the next one loads while this one waits
        workers[name] = (process, here)
    seconds: dict[str, list[float]] = {name: [] for name in recipes}
    for _ in range(max(recipe.steps for recipe in recipes.values()) // STEPS):
        for name, (_, connection) in workers.items():
            connection.send("go")
            seconds[name].append(connection.recv())
    ends = {}
    for name, (process, connection) in workers.items():
        ends[name] = connection.recv()
        process.join()
    return seconds, ends


def heldout_nll(variant: str, dtype: str) -> float | None:
    """Of the study `equal_quality`: the mean over its seeds at the learning rate of 1e-3; None where it has no run."""
    table = studies.table("equal_quality")
    found = table[(table.variant == variant) & (table.precision == dtype) & (table.lr == 1e-3)].heldout_nll
    return round(float(found.mean()), 4) if len(found) else None


def _work(recipe: Recipe, connection: Connection) -> None:
    """One variant in its own process: trains, and waits for its turn before the first step and after each round."""
    name = equal_quality.variant(recipe)
    if name == "ours":  # as in the course's commands; `tests.bench.profile` measures what it gains
        machine.keep_freed_memory()
    tokenizer = loading.load_tokenizer()
    examples = some_conversations(tokenizer, recipe)
    if name == "stock_trl_tuned":
        examples = grouped(examples, recipe)
    shortest = sorted(examples, key=lambda example: len(example["input_ids"]))[: recipe.batch_size]
    equal_quality.train(replace(recipe, steps=1), tokenizer, shortest)  # what a process does once is not timed
    started = 0.0

    def turn(step: int, _: float) -> None:
        nonlocal started
        if (step + 1) % STEPS:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        connection.send(perf_counter() - started if step >= 0 else 0.0)
        if step + 1 < recipe.steps:
            connection.recv()
            started = perf_counter()

    with memory.measure() as peak:
        equal_quality.train(recipe, tokenizer, examples, on_step=turn)
    tokens = sum(len(example["input_ids"]) for example in examples)
    supervised = sum(label != -100 for example in examples for label in example["labels"][1:])
    connection.send({"tokens": tokens, "supervised": supervised, "peak_bytes": peak.peak})


def some_conversations(tokenizer: Any, recipe: Recipe) -> list[Any]:
    """As many as the steps take, evenly over the training set."""
    fitting = conversations.encoded(tokenizer, recipe)["train"]
    wanted = recipe.steps * recipe.batch_size
    return [fitting[index * len(fitting) // wanted] for index in range(wanted)]


def grouped(examples: list[Any], recipe: Recipe) -> list[Any]:
    """In the order of `batches`: transformers' own grouping needs a larger set than this, and leaves it as it is."""
    in_batches = batches.batches(examples, recipe.batch_size, recipe.seed, "group_by_length")
    return [example for _ in range(recipe.steps) for example in next(in_batches)]


def main() -> list[dict[str, Any]]:
    rows = []
    for dtype, method in KINDS:
        if dtype == "bf16" and not machine.has_native_bf16():
            print(f"{dtype} {method}: left out, this machine has no bfloat16 of its own", file=sys.stderr)
            continue
        rows += [asdict(row) for row in measure(dtype, method)]
    return rows
