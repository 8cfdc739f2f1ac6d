"""Which parts fill the memory, at which moment of a training step?"""

import math
from dataclasses import dataclass

import pandas as pd
from transformers import PreTrainedConfig

from course_utils import loading
from course_utils.memory import activations, frameworks, weights
from course_utils.memory.frameworks import HABITS, Kept
from course_utils.memory.presets import find_config
from course_utils.memory.settings import Settings
from course_utils.memory.skeleton import adapted
from course_utils.memory.weights import Tensor

# The two numbers that were fitted: bytes allocated for each byte kept, and bytes that libraries take for themselves.
# They are solved from two rows of data/figures/peak_memory.csv alone, before any other was predicted: LoRA by litgpt on
# Llama-2-7B, with one sequence of 1,304 tokens and two. Peaks are printed to 0.01 GB, so the first is known to 0.001.
ACTIVATIONS, WORKSPACE = 1.0048, 19.6e6
ALWAYS = ("frozen weights", "quantization constants", "trainable weights", "optimizer states")
PARTS = (*ALWAYS, "gradients", "activations", "logits", "copies of weights", "workspace")


@dataclass(frozen=True)
class Costs:
    """Bytes on one GPU: a row for each of `PARTS`, a column for each moment; and what they follow from.

    `pageable` bytes of the optimizer states can leave the GPU. `parameters` and `trainable` count numbers.
    """

    moments: pd.DataFrame
    parameters: int
    trainable: int
    pageable: int

    @property
    def peak(self) -> int:
        """Bytes at the moment that needs most."""
        return int(self.moments.sum().max())


def costs(settings: Settings) -> Costs:
    """What a training step takes, at three moments.

    At the loss, all is there that the forward pass keeps. The backward pass meets the last layer first, and computes it
    again if only its input was kept. When it has come to the first layer, all gradients are there. The states of the
    optimizer are always there: they are made at the end of the first step.

    Raises:
        ValueError: the model is not known, or the text is longer than it takes.
    """
    config = find_config(settings.model)
    longest = getattr(config, "max_position_embeddings", None)
    if longest and settings.length > longest:
        raise ValueError(f"length is {settings.length:,}; this model takes at most {longest:,} tokens.")
    own = weights.tensors(settings, config)
    trained, each = weights.trained(settings, config)
    numbers = sum(tensor.numbers * tensor.times for tensor in trained)
    states, pageable = weights.states(settings, trained, each)
    frozen, constants = (0, 0) if settings.method == "full" else weights.stored(settings, own)
    shards = settings.gpus if settings.sharding == "fsdp" else 1
    always = dict(zip(ALWAYS, (frozen, constants, each * numbers, states), strict=True))
    gradients = each * numbers
    if settings.gpus > 1 and settings.sharding == "ddp":
        gradients *= 2  # and the buckets in which they are exchanged
    moments = _moments(settings, config, own, gradients)
    for found in moments.values():
        found |= {name: size / shards for name, size in (always | {"gradients": found["gradients"]}).items()}
        computed = found["activations"] + found["logits"]
        found["workspace"] = (ACTIVATIONS - 1) * computed + WORKSPACE
    table = pd.DataFrame(moments).loc[list(PARTS)].round().astype("int64")
    total = sum(tensor.numbers * tensor.times for tensor in own)
    return Costs(table, total, numbers, round(pageable / shards))


def _moments(
    settings: Settings, config: PreTrainedConfig, own: list[Tensor], gradients: int
) -> dict[str, dict[str, float]]:
    """What differs from moment to moment."""
    kept, habits = _kept(settings, config), HABITS[settings.framework]
    logits = settings.tokens * config.vocab_size
    width = 4 if settings.precision == "fp32" else 2
    held = logits * (width if habits.held is None else habits.held)
    scored = logits * width if settings.chunked_loss else held + logits * habits.logits
    whole = kept.inputs if settings.checkpointing else kept.layers
    again = kept.largest if settings.checkpointing else 0
    before = gradients if settings.accumulation > 1 else 0
    copies = _copies(settings, config, own)
    rows = {
        "loss": (before, whole + kept.rest, scored, copies[0]),
        "last layer": (before, whole + again, held, copies[1]),
        "first layer": (gradients, kept.largest, held, copies[2]),
    }
    names = ("gradients", "activations", "logits", "copies of weights")
    return {moment: dict(zip(names, sizes, strict=True)) for moment, sizes in rows.items()}


def _kept(settings: Settings, config: PreTrainedConfig) -> Kept:
    if settings.framework == "transformers":
        return activations.count(adapted(config, settings), settings.micro_batch, settings.length)
    return frameworks.kept(config, settings)


def _copies(settings: Settings, config: PreTrainedConfig, own: list[Tensor]) -> tuple[float, float, float]:
    """Bytes of weights in the format that is computed in, or gathered from other GPUs, at the three moments."""
    habits = HABITS[settings.framework]
    largest = max(tensor.numbers for tensor in own if tensor.kind == "matrix")
    head = sum(tensor.numbers for tensor in own if tensor.kind == "head")
    found = (0, 0, 0)
    if settings.precision in loading.QUANTIZED:
        each = 2 * habits.dequantized
        found = (each * head * habits.quantizes_head, each * largest, each * largest)
    elif settings.precision == "bf16-mixed":  # autocast copies each frozen matrix, the head once for every chunk
        chunks = math.ceil(settings.length / (habits.head_chunk or settings.length))
        matrices = 2 * sum(tensor.numbers * tensor.times for tensor in own if tensor.kind == "matrix")
        found = (matrices + 2 * chunks * head, matrices, 2 * largest)
    if settings.gpus == 1 or settings.sharding == "ddp":
        return found
    whole = weights.gathered(settings, own, config.num_hidden_layers)
    return tuple(size + whole for size in found)
