"""Does it fit, what would, and which change buys most?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from course_utils import loading
from course_utils.memory.parts import Costs, costs
from course_utils.memory.presets import find_config
from course_utils.memory.settings import Settings

GB = 1e9
MOST = 2**20  # no micro-batch is larger, and no length, where the model itself names no limit


@dataclass(frozen=True)
class Change:
    """One setting changed, in words, and the bytes that it saves at the peak."""

    words: str
    settings: Settings
    saves: int


def missing(found: Costs, settings: Settings) -> int:
    """Bytes by which the GPU is too small; zero or less if it fits."""
    return found.peak - int(settings.gpu_gb * GB)


def largest(settings: Settings, name: str) -> int:
    """The largest "micro_batch", or "length", that fits, all else unchanged; 0 if none does."""
    limit = MOST
    if name == "length":
        limit = getattr(find_config(settings.model), "max_position_embeddings", None) or MOST

    def fits(value: int) -> bool:
        changed = replace(settings, **{name: value})
        return missing(costs(changed), changed) <= 0

    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def changes(settings: Settings, found: Costs) -> list[Change]:
    """Single changes that save something, the largest saving first."""
    saved = []
    for words, fields in _candidates(settings):
        changed = replace(settings, **fields)
        saved.append(Change(words, changed, found.peak - costs(changed).peak))
    return sorted((change for change in saved if change.saves > 0), key=lambda change: -change.saves)


def _candidates(now: Settings) -> Iterator[tuple[str, dict[str, object]]]:
    """What can be changed, in words and as fields."""
    if not now.checkpointing:
        yield "checkpoint the layers", {"checkpointing": True}
    if not now.chunked_loss:
        yield "compute the loss on some tokens at a time", {"chunked_loss": True}
    if now.attention == "eager":
        yield "use fused attention", {"attention": "sdpa"}
    if now.method == "full":
        yield "train an adapter (LoRA)", {"method": "lora"}
    if now.precision in ("fp32", "bf16-mixed"):
        yield "16-bit weights", {"precision": "bf16"}
    if now.method == "lora":
        yield "quantize the frozen weights (QLoRA)", {"method": "qlora", "precision": "nf4-dq"}
    if now.precision in loading.QUANTIZED and now.precision != "nf4-dq":
        yield "NF4 with double quantization", {"precision": "nf4-dq"}
    if now.optimizer in ("adamw", "paged_adamw"):
        yield "8-bit optimizer states", {"optimizer": now.optimizer + "_8bit"}
    if now.method != "full" and now.r > 1:
        yield f"r = {now.r // 2}", {"r": now.r // 2}
    if now.micro_batch > 1:
        half = now.micro_batch // 2
        yield f"a micro-batch of {half}, accumulated", {"micro_batch": half, "accumulation": 2 * now.accumulation}
    if now.length > 1:
        yield f"texts of {now.length // 2:,} tokens", {"length": now.length // 2}
    yield f"{2 * now.gpus} GPUs with FSDP", {"gpus": 2 * now.gpus, "sharding": "fsdp"}
