"""How many bytes do weights, their gradients and the optimizer's states take?"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedConfig

from course_utils import loading
from course_utils.memory import frameworks
from course_utils.memory.frameworks import HABITS
from course_utils.memory.settings import Settings
from course_utils.memory.skeleton import adapted, bare

WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2, "bf16-mixed": 4}  # bytes a number; what is quantized computes in 2
# bitsandbytes: numbers to a scale, and scales to one of their own; numbers to a scale of the states. Tensors of fewer
# numbers have their states not in 8 bits, or not paged.
BLOCK, SCALES, STATES, SMALL, PAGED = 64, 256, 256, 4096, 100_000


@dataclass(frozen=True)
class Tensor:
    """A parameter: its numbers, its rows, how often the model has it; a "matrix", "embedding", "head", or "other"."""

    numbers: int
    rows: int
    times: int = 1
    kind: str = "other"


def width(settings: Settings) -> int:
    """Bytes of a number that is not quantized."""
    return WIDTHS.get(settings.precision, 2)


def tensors(settings: Settings, config: PreTrainedConfig) -> list[Tensor]:
    """The weights of the model itself; with a second copy of a head that is tied, if the framework makes one."""
    skeleton = bare(config, settings)
    matrices, head, embedding = skeleton.matrices(), skeleton.head, skeleton.embedding
    found = []
    for p, times in skeleton.parameters():
        kind = "matrix" if id(p) in matrices else "other"
        kind = "embedding" if p is embedding else "head" if p is head else kind
        found.append(Tensor(p.numel(), p.shape[0], times, kind))
    if head is embedding and not HABITS[settings.framework].tied:
        found.append(Tensor(head.numel(), head.shape[0], 1, "head"))
    return found


def trained(settings: Settings, config: PreTrainedConfig) -> tuple[list[Tensor], int]:
    """The tensors that are trained, and the bytes of one of their numbers."""
    if settings.method == "full":
        return tensors(settings, config), width(settings)
    habits = HABITS[settings.framework]
    precision = settings.adapter_precision or habits.adapters
    each = WIDTHS[precision] if precision else width(settings)
    if settings.framework == "transformers":
        found = adapted(config, settings).parameters()
        return [Tensor(p.numel(), p.shape[0], times) for p, times in found if p.requires_grad], each
    pairs = frameworks.adapter_shapes(config, frameworks.targets(settings), settings.r)
    return [Tensor(rows * columns, rows, times) for rows, columns, times in pairs], each


def stored(settings: Settings, found: Iterable[Tensor]) -> tuple[int, int]:
    """Bytes of frozen weights, and of the constants that quantization adds to them."""
    weights = constants = 0
    heads = HABITS[settings.framework].quantizes_head
    for tensor in found:
        packed, scales = tensor.numbers * width(settings), 0
        if settings.precision in loading.QUANTIZED and (tensor.kind == "matrix" or (heads and tensor.kind == "head")):
            packed, scales = quantized(tensor, settings.precision)
        weights += packed * tensor.times
        constants += scales * tensor.times
    return weights, constants


def quantized(tensor: Tensor, precision: str) -> tuple[int, int]:
    """Bytes of a packed matrix and of its constants, as bitsandbytes stores them."""
    if precision == "int8":
        return tensor.numbers, 4 * tensor.rows
    blocks = math.ceil(tensor.numbers / BLOCK)
    constants = 16 * 4 + 4 * blocks
    if precision == "nf4-dq":
        constants = 16 * 4 + blocks + 4 * math.ceil(blocks / SCALES) + 256 * 4 + 4  # two code tables, and the mean
    return math.ceil(tensor.numbers / 2), constants


def states(settings: Settings, found: Iterable[Tensor], each: int) -> tuple[int, int]:
    """Bytes of an optimizer's two numbers for each trained one; and how many of these bytes can leave the GPU."""
    total = pageable = 0
    for tensor in found:
        size = tensor.times * _states_of(settings.optimizer, tensor.numbers, each)
        total += size
        pageable += size if settings.optimizer.startswith("paged") and tensor.numbers >= PAGED else 0
    return total, pageable


def _states_of(optimizer: str, numbers: int, each: int) -> int:
    if optimizer == "adamw":
        return 2 * each * numbers
    if optimizer.endswith("8bit") and numbers >= SMALL:
        return 2 * (numbers + 4 * math.ceil(numbers / STATES))
    return 2 * 4 * numbers


def gathered(settings: Settings, found: list[Tensor], layers: int) -> float:
    """Bytes of weights that FSDP has whole on each GPU: this layer, the next one, and what is outside of the layers."""
    outside = [tensor for tensor in found if tensor.kind in ("embedding", "head")]
    whole, around = (sum(stored(settings, group)) for group in (found, outside))
    return around + 2 * (whole - around) / layers
