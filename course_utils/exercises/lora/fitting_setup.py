"""Can you make it fit?

`step_bytes` makes a small Llama, takes one step of AdamW, and adds up what lives: weights, gradients, the optimizer's
states, and the activations of one forward pass. Full fine-tuning of 16 texts at once in fp32, `step_bytes(r=None,
precision="fp32", batch_size=16)`, needs far more than the 20 MB (10^6 bytes) that there are.

Return a set-up that fits, as a dict: `r` (None trains all weights), `precision` of the base (`"fp32"` or `"bf16"`),
`batch_size`, and `accumulation`, the number of such batches whose gradients are added up before a step. Two rules: a
step sees 16 texts, and an adapter has a rank of at least 8. Call `step_bytes` as often as you like: which part is the
largest?
"""

import functools
from collections.abc import Callable

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import memory
from course_utils.exercises.exercise import Exercise

MOST, TEXTS, LOWEST_RANK = 20e6, 16, 8
Setup = dict[str, int | str | None]


def step_bytes(r: int | None, precision: str, batch_size: int) -> pd.Series:
    """Bytes of a training step by part: LoRA of rank r on all linear layers, or all weights; texts of 64 tokens."""
    shape = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1024, tie_word_embeddings=True, **shape))
    model = model.to({"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    if r is not None:
        model = get_peft_model(model, LoraConfig(r=r, target_modules="all-linear"))
    ids = torch.ones(batch_size, 64, dtype=torch.long)

    def forward() -> torch.Tensor:
        return model(input_ids=ids, labels=ids, use_cache=False).loss

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    forward().backward()
    optimizer.step()
    kept = memory.ledger(model, optimizer).drop("total")
    return pd.concat([kept[kept > 0], pd.Series({"activations": memory.activation_bytes(model, forward)})])


def fitting_setup() -> dict[str, int | str | None]:
    """A set-up within 20 MB: r, precision, batch_size and accumulation."""
    return {"r": 16, "precision": "bf16", "batch_size": 1, "accumulation": 16}


def cases() -> dict[str, tuple]:
    return {"20 MB": ()}


def outcome(answer: Callable[[], Setup]) -> dict[str, str]:
    """Whether the rules were kept, and whether it fits; if not, what it needs.

    Raises:
        ValueError: the set-up has other fields, or values that no set-up has.
    """
    setup = answer()
    fields = fitting_setup().keys()
    if not isinstance(setup, dict) or setup.keys() != fields:
        raise ValueError(f"A set-up is a dict with the keys {', '.join(fields)}.")
    r, precision, batch_size, accumulation = (setup[name] for name in fields)
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision is {precision!r}; here it is 'fp32' or 'bf16'.")
    if not all(isinstance(n, int) and n > 0 for n in (batch_size, accumulation, 1 if r is None else r)):
        raise ValueError("r, batch_size and accumulation are whole numbers above 0; r may be None.")
    broken = []
    if batch_size * accumulation != TEXTS:
        broken.append(f"a step sees {batch_size * accumulation} texts, not {TEXTS}")
    if r is not None and r < LOWEST_RANK:
        broken.append(f"the rank is {r}, the lowest is {LOWEST_RANK}")
    parts = _measured(r, precision, batch_size)
    needs = f"{parts.sum() / 1e6:.1f} MB, of which {parts.max() / 1e6:.1f} MB are {parts.idxmax()}"
    return {"rules": "; ".join(broken) or "kept", "memory": "fits" if parts.sum() <= MOST else needs}


_measured = functools.cache(step_bytes)


def all_at_once():
    return {"r": 8, "precision": "bf16", "batch_size": 16, "accumulation": 1}


def all_weights():
    return {"r": None, "precision": "fp32", "batch_size": 1, "accumulation": 16}


def full_in_16_bits():
    return {"r": None, "precision": "bf16", "batch_size": 1, "accumulation": 16}


def base_in_32_bits():
    return {"r": 8, "precision": "fp32", "batch_size": 1, "accumulation": 16}


def fewer_texts():
    return {"r": 8, "precision": "bf16", "batch_size": 1, "accumulation": 1}


def rank_one():
    return {"r": 1, "precision": "bf16", "batch_size": 2, "accumulation": 8}


def lowest_rank():
    return {"r": 8, "precision": "bf16", "batch_size": 2, "accumulation": 8}


EXERCISE = Exercise(
    answer=fitting_setup,
    kind="make it fit",
    difficulty=2,
    minutes=12,
    cases=cases,
    outcome=outcome,
    given=(step_bytes,),
    mistakes={
        all_at_once: "It needs {yours}. An adapter saves gradients and states; the activations it hardly touches. "
        "They grow with the texts of one batch.",
        all_weights: "It needs {yours}. Small batches are the right idea; now each weight still has a gradient and "
        "two averages.",
        full_in_16_bits: "It needs {yours}. All weights are trained, so each has a gradient and two averages, in 16 "
        "bits as well.",
        base_in_32_bits: "It needs {yours}. What is largest now does not have to be kept in 32 bits.",
        fewer_texts: "It fits, but {yours}: that is another training. `accumulation` adds up several batches.",
        rank_one: "It fits, but {yours}, and the adapter was never the largest part.",
    },
    hints=(
        "Print `step_bytes` of full fine-tuning, and change one argument at a time. Which part does each of them move?",
        "A small `batch_size` with a larger `accumulation` shrinks the activations, an adapter the gradients and "
        "states, bf16 the frozen weights. None of them is enough alone.",
    ),
    alternatives=(lowest_rank,),
)
