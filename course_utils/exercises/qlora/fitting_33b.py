"""Can you make 33 billion parameters fit?

The lesson planned the paper's case, LLaMA-33B on a card of 24 GB, and it was a tenth of a gigabyte too large. Here it
is harder: texts of 1,024 tokens, 16 of them to an update, r = 64 or more on all linear layers, and one gigabyte stays
free for what a plan does not count. So the plan may have 23 GB (10^9 bytes), with all states on the card: paging is
for spikes, and these texts are all of one length.

Return a set-up that fits, as a dict of settings for `memory.plan`: choose among `method`, `precision`, `r`,
`adapter_precision`, `optimizer`, `micro_batch`, `accumulation`, `checkpointing` and `chunked_loss`. What you leave out
has the planner's default. `print(planned(method="lora", r=64, micro_batch=16))` is a first try; its last line says what
buys most. (Accumulated over several micro-batches, 16 texts are still one update.)
"""

import functools
from collections.abc import Callable

from course_utils import memory
from course_utils.exercises.exercise import Exercise

CARD, TEXTS, LOWEST_RANK = 23, 16, 64
FIELDS = "method precision r adapter_precision optimizer micro_batch accumulation checkpointing chunked_loss".split()
Setup = dict[str, str | int | bool]


def planned(**settings: str | int | bool) -> memory.Plan:
    """A training step of LLaMA-33B on texts of 1,024 tokens, with 23 GB to fill."""
    return memory.plan("LLaMA-33B", length=1024, gpu_gb=23, **settings)


def fitting_33b() -> dict[str, str | int | bool]:
    """Settings with which the plan fits and the rules are kept."""
    adapter = {"method": "qlora", "r": 64, "adapter_precision": "bf16", "optimizer": "adamw_8bit"}
    return adapter | {"micro_batch": 1, "accumulation": 16, "checkpointing": True}


def cases() -> dict[str, tuple]:
    return {"23 GB": ()}


def outcome(answer: Callable[[], Setup]) -> dict[str, str]:
    """Whether the rules were kept, and whether it fits; if not, what it needs.

    Raises:
        ValueError: a setting that is not to be chosen, or a value that no plan has.
    """
    setup = answer()
    if not isinstance(setup, dict) or (unknown := sorted(setup.keys() - {*FIELDS})):
        more = f"; not to be chosen: {', '.join(unknown)}" if isinstance(setup, dict) else ""
        raise ValueError(f"A set-up is a dict with keys among {', '.join(FIELDS)}{more}.")
    for name in ("checkpointing", "chunked_loss"):
        if not isinstance(setup.get(name, False), bool):
            raise ValueError(f"{name} is {setup[name]!r}; it is True or False.")
    plan = _planned(**setup)
    now, broken = plan.settings, []
    if now.micro_batch * now.accumulation != TEXTS:
        broken.append(f"an update sees {now.micro_batch * now.accumulation} texts, not {TEXTS}")
    if now.method != "full" and now.r < LOWEST_RANK:
        broken.append(f"r is {now.r}, the lowest is {LOWEST_RANK}")
    largest = plan.parts.idxmax()
    larger = f" with r = {now.r}" if now.r > LOWEST_RANK else ""
    needs = f"{plan.peak / 1e9:.1f} GB{larger}, of which {plan.parts[largest] / 1e9:.1f} GB are {largest}"
    parts = ", ".join(f"{size / 1e9:.2f} GB {part}" for part, size in plan.parts.items())
    kept = "; ".join(broken) or "kept"
    return {"rules": kept, "memory": "fits" if plan.fits else needs, "plan": "fits" if plan.fits else parts}


_planned = functools.cache(planned)


def still_lora():
    return fitting_33b() | {"method": "lora"}


def all_at_once():
    return fitting_33b() | {"micro_batch": 16, "accumulation": 1}


def not_checkpointed():
    return fitting_33b() | {"checkpointing": False}


def adapter_in_32_bits():
    return {name: value for name, value in fitting_33b().items() if name != "adapter_precision"}


def states_in_32_bits():
    return {name: value for name, value in adapter_in_32_bits().items() if name != "optimizer"}


def paged_states():
    return fitting_33b() | {"optimizer": "paged_adamw"}


def quantized_once():
    return fitting_33b() | {"precision": "nf4", "optimizer": "adamw"}


def fewer_texts():
    return fitting_33b() | {"accumulation": 1}


def smaller_rank():
    return fitting_33b() | {"r": 16}


def states_in_16_bits():
    return fitting_33b() | {"optimizer": "adamw", "precision": "nf4-dq"}


EXERCISE = Exercise(
    answer=fitting_33b,
    kind="make it fit",
    difficulty=2,
    minutes=12,
    cases=cases,
    outcome=outcome,
    given=(planned,),
    mistakes={
        still_lora: "It needs {yours}: in 16 bits the weights alone are more than the card. `method` has a value that "
        "stores them in 4.",
        all_at_once: "It needs {yours}, and those are packed already. With 16 texts at once, what is kept of each "
        "layer is kept 16 times; `accumulation` adds up the gradients of smaller micro-batches.",
        not_checkpointed: "It needs {yours}. The weights are small now; what all 60 layers keep for the backward pass "
        "is not.",
        adapter_in_32_bits: "It needs {yours}, and those are packed already. What is left are half a billion trained "
        "numbers: PEFT keeps them in fp32, and with them their gradients.",
        states_in_32_bits: "It needs {yours}, and those are packed already. What is left are half a billion trained "
        "numbers: in fp32 each takes 16 bytes, with its gradient and Adam's two numbers.",
        paged_states: "It needs {yours}, and those are packed already. A paged AdamW has its states in 32 bits, "
        "whatever the format of the adapter, and here they have to stay on the card.",
        quantized_once: "It needs {yours}. Their absmax are not among these and take 2.0 GB; there is a way to "
        "quantize them, too.",
        fewer_texts: "It fits, but {yours}: that is another training. `accumulation` adds up several micro-batches.",
        smaller_rank: "It fits, but {yours}; the adapter can be made smaller in other ways.",
    },
    hints=(
        "Print the plan and read its parts. Attack the largest one, print it again, and go on: first the frozen "
        "weights, then the activations, then what belongs to the trained numbers.",
        "QLoRA, a checkpoint for each layer, and one text at a time, 16 times, leave about 27 GB. The rest is the "
        "adapter's: how many bytes has one of its numbers, and each of its two states?",
    ),
    alternatives=(states_in_16_bits,),
)
