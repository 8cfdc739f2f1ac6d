"""What is made of a trained adapter before it comes with the course, and how good is it then?

python -m course_utils.training recipes/guanaco.yaml --output-dir build/guanaco-smollm2
python -m course_utils.course.adapter build/guanaco-smollm2

The first command trains it. The second rounds it to 16 bits, which halves the file, and puts it into `data/adapters/`,
with a model card and with scores that were measured with what lies there.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from course_utils import chat, datafiles, evaluation, loading, machine
from course_utils.core import console, files
from course_utils.loading.adapters import CONFIG, WEIGHTS

QUESTIONS, MAX_NEW_TOKENS = 16, 64  # of the lesson, which measures the adapter again
TOLERANCE = 0.01  # nats per token: other CPUs round otherwise, and stay far below it


def ship(trained: Path, folder: Path) -> None:
    """Put the adapter that lies in `trained` into `folder`: rounded to bfloat16, with its card and its scores.

    Raises:
        loading.AdapterError: there is no whole adapter, or it does not fit the course's model.
        FileNotFoundError: its recipe or its card is missing; nothing is written.
    """
    loading.load_adapter(_base(), trained)
    as_they_are = {name: (trained / name).read_bytes() for name in (CONFIG, files.RECIPE, "README.md")}
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in load_file(trained / WEIGHTS).items()}
    content = save(weights, metadata={"format": "pt"})
    files.write_whole(folder / WEIGHTS, content)
    for name in (CONFIG, files.RECIPE):
        files.write_whole(folder / name, as_they_are[name])
    found = scores(folder)
    files.write_whole(folder / "README.md", f"{as_they_are['README.md'].decode()}\n{_said(found)}")
    found |= {"rounded_to": "bf16", "sha256": hashlib.sha256(content).hexdigest(), "machine": machine.describe()}
    files.write_whole(folder / "scores.json", json.dumps(found, indent=1) + "\n")


def scores(folder: Path) -> dict[str, Any]:
    """Of an adapter, on the default model in 4 bits that computes in fp32, on the test conversations.

    `test_nll`, the loss on their answers in nats per token, and `stop_rate`, the share of its greedy answers to their
    first English questions that it ends by itself; and of how many threads, questions and tokens that was.
    """
    tokenizer, model = loading.load_tokenizer(), loading.load_adapter(_base(), folder)
    trees = datafiles.load_conversations(split="test")
    loss = evaluation.nll(model, [chat.encode(chat.top_thread(tree), tokenizer) for tree in trees])
    asked = [chat.question(tree.text) for tree in trees if tree.lang == "en"][:QUESTIONS]
    answers = evaluation.generate(model, tokenizer, asked, max_new_tokens=MAX_NEW_TOKENS)
    return {
        "test_nll": round(loss.mean, 6),
        "test_threads": len(trees),
        "stop_rate": evaluation.stop_rate(answers),
        "questions": len(asked),
        "max_new_tokens": MAX_NEW_TOKENS,
    }


def _base() -> torch.nn.Module:
    return loading.load_model(precision="nf4-dq", compute_dtype=torch.float32, device="cpu")


def _said(found: dict[str, Any]) -> str:
    """The part of the card that training cannot write."""
    return (
        "## As it lies here\n\n"
        "After training, the weights were rounded to bfloat16, which halves the file. With what lies here, on the "
        f"base in 4 bits, computing in fp32: {found['test_nll']:.3f} nats per answer token on the "
        f"{found['test_threads']} test conversations, which chose nothing. It ended {found['stop_rate']:.0%} of its "
        f"greedy answers to {found['questions']} test questions by itself, within {found['max_new_tokens']} tokens.\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    console.accept_all()
    parser = argparse.ArgumentParser(prog="python -m course_utils.course.adapter", description="Ship an adapter.")
    parser.add_argument("trained", type=Path, help="the folder that `python -m course_utils.training` left")
    parser.add_argument("folder", type=Path, nargs="?", default=datafiles.shipped_adapter(), help="where it goes")
    given = parser.parse_args(arguments)
    try:
        ship(given.trained, given.folder)
    except (OSError, ValueError) as error:
        sys.exit(f"{parser.prog}: {error}")
    print(f"Done: {given.folder}")


if __name__ == "__main__":
    main()
