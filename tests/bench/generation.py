"""How fast are answers generated for an evaluation, beside transformers' `generate` on batches as they come?

python -m tests.bench.generation    # 8 min; build/generation.json
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import torch
from bitsandbytes.functional import has_avx512bf16
from bitsandbytes.nn import Linear4bit
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat, datafiles, evaluation, loading, machine, training
from course_utils.batches import collate_prompts
from course_utils.chat import Turn
from course_utils.core import files
from course_utils.core.mode import evaluating
from tests.bench import report
from tests.bench.speed import CONVERSATIONS, KINDS, some_conversations

SETS = {"short": (60, 16), "long": (16, 128)}  # questions, and the most tokens of an answer
ROUNDS, BATCH_SIZE = 2, 16


@dataclass(frozen=True)
class Row:
    """Tokens of the answers over the seconds of both rounds; `same` answers are equal in every letter.

    `largest_gap`: of the others, how much likelier one of the first two tokens that differ is, in nats; see `gap`.
    """

    dtype: str
    method: str
    answers: str
    tokens: int
    plain_tokens_per_second: float
    ours_tokens_per_second: float
    same: int
    of: int
    largest_gap: float
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
    stock = with_the_kernel_of_bitsandbytes(copy.deepcopy(model))
    questions = [[{"role": "user", "content": prompt["text"]}] for prompt in datafiles.load_prompts()]
    rows = []
    for name, (count, most) in SETS.items():
        threads = questions[:count]
        ways: dict[str, Callable[[list[list[Turn]]], list[str]]] = {
            "plain": lambda asked, m=most: plain(stock, tokenizer, asked, m),
            "ours": lambda asked, m=most: [
                answer.text for answer in evaluation.generate(model, tokenizer, asked, max_new_tokens=m)
            ],
        }
        seconds, texts = dict.fromkeys(ways, 0.0), {way: answer(threads[:2]) for way, answer in ways.items()}
        for turn in range(ROUNDS):
            for way in sorted(ways, reverse=bool(turn % 2)):
                start = perf_counter()
                texts[way] = ways[way](threads)
                seconds[way] += perf_counter() - start
        tokens = {way: sum(len(ids) for ids in tokenizer(texts[way])["input_ids"]) for way in ways}
        speeds = [round(ROUNDS * tokens[way] / seconds[way], 1) for way in ("plain", "ours")]
        gaps = [
            gap(model, tokenizer, thread, *both)
            for thread, *both in zip(threads, texts["plain"], texts["ours"], strict=True)
            if both[0] != both[1]
        ]
        same, largest = count - len(gaps), round(max(gaps, default=0.0), 3)
        rows.append(Row(dtype, method, name, tokens["plain"], *speeds, same, count, largest, machine.describe()))
    return rows


def with_the_kernel_of_bitsandbytes(model: nn.Module) -> nn.Module:
    """4-bit layers as bitsandbytes makes them: with its kernel for inference, which the course turns off."""
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = has_avx512bf16()
    return model


@torch.no_grad()
def gap(model: nn.Module, tokenizer: PreTrainedTokenizerBase, thread: list[Turn], one: str, other: str) -> float:
    """How much likelier the model finds one of the two first tokens that differ, in nats; near 0, it is a tie."""
    ids = [
        chat.encode([*thread, {"role": "assistant", "content": text}], tokenizer)["input_ids"] for text in (one, other)
    ]
    first = next(place for place, (a, b) in enumerate(zip(*ids, strict=False)) if a != b)
    with evaluating(model) as device:
        logits = model(torch.tensor([ids[0][:first]], device=device)).logits[0, -1].float()
    return abs(logits[ids[0][first]] - logits[ids[1][first]]).item()


def main() -> None:
    machine.keep_freed_memory()
    tokenizer, rows = loading.load_tokenizer(), []
    for dtype, method in KINDS:
        if dtype != "bf16" or machine.has_native_bf16():
            rows += [asdict(row) for row in measure(dtype, method, tokenizer)]
    files.write_whole(files.ROOT / "build" / "generation.json", json.dumps(rows, indent=1))
    table = Table(*report.GENERATION_HEAD)
    for row in rows:
        table.add_row(*report.generation_row(row))
    Console().print(table)


if __name__ == "__main__":
    main()
