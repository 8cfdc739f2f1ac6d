"""What is kept between steps if the base has 16 bits?

The lesson had everything in 32 bits. The usual set-up on a GPU is another: the frozen base in bf16, 2 bytes a number.
PEFT then still makes the adapter in fp32, and AdamW keeps its two averages in the format of what it trains.

Predict the bytes, from the number of frozen and of trained parameters: a dict with the keys `frozen weights`,
`trainable weights`, `gradients` and `optimizer states`. (Leave out Adam's step counters, a few bytes for each matrix.)
Which of them will be largest for 134,515,008 frozen and 4,884,480 trained ones, those of the lesson?
"""

import torch

from course_utils.exercises.exercise import Exercise


def kept_bytes(frozen: int, trained: int) -> dict[str, int]:
    """Bytes between two steps: frozen weights in bf16, trained ones in fp32, with AdamW."""
    return {
        "frozen weights": 2 * frozen,
        "trainable weights": 4 * trained,
        "gradients": 4 * trained,
        "optimizer states": 2 * 4 * trained,
    }


def cases() -> dict[str, tuple[int, int]]:
    return {"the lesson's model": (134_515_008, 4_884_480), "nothing frozen": (0, 1000), "a toy": (4096, 512)}


def base_in_32_bits(frozen, trained):
    return kept_bytes(frozen, trained) | {"frozen weights": 4 * frozen}


def adapter_in_16_bits(frozen, trained):
    return {key: size // 2 if key != "frozen weights" else size for key, size in kept_bytes(frozen, trained).items()}


def gradients_of_all(frozen, trained):
    return kept_bytes(frozen, trained) | {"gradients": 2 * frozen + 4 * trained}


def states_of_all(frozen, trained):
    return gradients_of_all(frozen, trained) | {"optimizer states": 8 * (frozen + trained)}


def one_average(frozen, trained):
    return kept_bytes(frozen, trained) | {"optimizer states": 4 * trained}


def with_a_master_copy(frozen, trained):
    return kept_bytes(frozen, trained) | {"frozen weights": 6 * frozen}


def of_tensors(frozen, trained):
    with torch.device("meta"):
        base, adapter, states = torch.empty(frozen, dtype=torch.bfloat16), torch.empty(trained), torch.empty(2, trained)
    sizes = base.nbytes, adapter.nbytes, adapter.nbytes, states.nbytes
    return dict(zip(("frozen weights", "trainable weights", "gradients", "optimizer states"), sizes, strict=True))


EXERCISE = Exercise(
    answer=kept_bytes,
    kind="predict it",
    difficulty=1,
    minutes=5,
    cases=cases,
    mistakes={
        base_in_32_bits: "{part}: {ratio:.1f} times too much. A bf16 number takes 2 bytes.",
        adapter_in_16_bits: "{part}: {ratio:.1f} of what PEFT needs. The adapter is not in the format of its base; it "
        "is in fp32, and so are its gradients and averages.",
        gradients_of_all: "{part}: {ratio:.1f} times too much. Frozen weights get no gradient.",
        states_of_all: "{parts} of the {all_parts} sizes are too large, gradients {ratio:.1f} times. Frozen weights "
        "have neither a gradient nor averages: that would be full fine-tuning.",
        one_average: "{part}: {ratio:.1f} of what is needed. Adam keeps two averages for each number, one of the "
        "gradients and one of their squares.",
        with_a_master_copy: "{part}: {ratio:.1f} times too much. A 32-bit copy is kept of weights that are trained in "
        "16 bits; these are not trained.",
    },
    hints=(
        "Four questions, one for each key: how many numbers, and how many bytes is one of them?",
        "Only what is trained has a gradient and averages. bf16 takes 2 bytes, fp32 4, and Adam has two averages.",
    ),
    alternatives=(of_tensors,),
)
