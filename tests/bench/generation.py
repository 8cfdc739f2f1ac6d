"""How fast are answers generated for an evaluation, beside transformers' `generate` on batches as they come?

python -m tests.bench.generation    # 8 min; build/generation.json
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat, datafiles, evaluation, loading, machine, training
from course_utils.batches import collate_prompts
from course_utils.chat import Turn
from course_utils.core import files
from course_utils.evaluation.mode import evaluating
from tests.bench.speed import CONVERSATIONS, KINDS, some_conversations

SETS = {"short": (60, 16), "long": (16, 128)}  # questions, and the most tokens of an answer
ROUNDS, BATCH_SIZE = 2, 16


@dataclass(frozen=True)
class Row:
    """Tokens of the answers over the seconds of both rounds; `same` answers are equal in every letter."""

    dtype: str
    method: str
    answers: str
    tokens: int
    plain_tokens_per_second: float
    ours_tokens_per_second: float
    same: int
    of: int
    machine: str


@torch.no_grad()
def plain(model: nn.Module, tokenizer: PreTrainedTokenizerBase, threads: Sequence[list[Turn]], most: int) -> list[str]:
    """The greedy answers by transformers alone: batches in the given order, each until its last row has ended."""
    end, answers = chat.end_id(tokenizer, "guanaco"), []
    with evaluating(model):
        for start in range(0, len(threads), BATCH_SIZE):
            prompts = [chat.encode_prompt(t, tokenizer, "guanaco") for t in threads[start : start + BATCH_SIZE]]
            batch = {name: values.to(model.device) for name, values in collate_prompts(prompts, end).items()}
            options = {"max_new_tokens": most, "do_sample": False, "eos_token_id": end, "pad_token_id": end}
            found = model.generate(**batch, **options, repetition_penalty=1.0)[:, batch["input_ids"].shape[1] :]
            answers += [_until(row, end, tokenizer) for row in found.tolist()]
    return answers


def _until(ids: list[int], end: int, tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.decode(ids[: ids.index(end)] if end in ids else ids).strip()


def measure(dtype: str, method: str, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """A model that a short training has taught to end its answers gives them in both ways, by turns."""
    recipe = replace(CONVERSATIONS, lr=1e-3, steps=12, **KINDS[dtype, method])
    model = training.prepare_model(recipe)
    training.fit(model, some_conversations(tokenizer, recipe), recipe)
    questions = [[{"role": "user", "content": prompt["text"]}] for prompt in datafiles.load_prompts()]
    rows = []
    for name, (count, most) in SETS.items():
        threads = questions[:count]
        ways: dict[str, Callable[[], list[str]]] = {
            "plain": lambda t=threads, m=most: plain(model, tokenizer, t, m),
            "ours": lambda t=threads, m=most: [
                answer.text for answer in evaluation.generate(model, tokenizer, t, max_new_tokens=m)
            ],
        }
        seconds, texts = dict.fromkeys(ways, 0.0), {}
        for _ in range(ROUNDS):
            for way, answer in ways.items():
                start = perf_counter()
                texts[way] = answer()
                seconds[way] += perf_counter() - start
        tokens = sum(len(ids) for ids in tokenizer(texts["plain"])["input_ids"])
        speeds = [round(ROUNDS * tokens / seconds[way], 1) for way in ("plain", "ours")]
        same = sum(a == b for a, b in zip(texts["plain"], texts["ours"], strict=True))
        rows.append(Row(dtype, method, name, tokens, *speeds, same, count, machine.describe()))
    return rows


def main() -> None:
    machine.keep_freed_memory()
    tokenizer, rows = loading.load_tokenizer(), []
    for dtype, method in KINDS:
        if dtype != "bf16" or machine.has_native_bf16():
            rows += measure(dtype, method, tokenizer)
    files.write_whole(files.ROOT / "build" / "generation.json", json.dumps([asdict(row) for row in rows], indent=1))
    table = Table("dtype", "method", "answers", "plain, tokens/s", "ours, tokens/s", "times", "same answers")
    for row in rows:
        times = row.ours_tokens_per_second / max(row.plain_tokens_per_second, math.ulp(1.0))
        speeds = f"{row.plain_tokens_per_second:.0f}", f"{row.ours_tokens_per_second:.0f}", f"{times:.2f}"
        table.add_row(row.dtype, row.method, row.answers, *speeds, f"{row.same} of {row.of}")
    Console().print(table)


if __name__ == "__main__":
    main()
