"""What will a training step cost, before anything is loaded?"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from transformers import PreTrainedConfig

from course_utils import plots
from course_utils.memory.answers import GB, Change, changes, largest, missing
from course_utils.memory.parts import Costs, costs
from course_utils.memory.settings import Settings

BAR = {  # what a bar shows, and of which parts it consists
    "frozen weights": ("frozen weights", "quantization constants"),
    "trained weights": ("trainable weights",),
    "gradients": ("gradients",),
    "optimizer states": ("optimizer states",),
    "activations and logits": ("activations", "logits"),
    "rest": ("copies of weights", "workspace"),
}


@dataclass(frozen=True)
class Plan:
    """What one training step needs on each GPU: printed, a table and whether it fits; `picture()` and `to_json()`."""

    settings: Settings
    costs: Costs

    @property
    def moment(self) -> str:
        """When most is needed, "loss", "last layer" or "first layer", as the backward pass meets them."""
        return str(self.costs.moments.sum().idxmax())

    @property
    def parts(self) -> pd.Series:
        """Bytes of each part at that moment."""
        return self.costs.moments[self.moment].rename("bytes")

    @property
    def peak(self) -> int:
        """Bytes allocated at that moment; what a process needs beside them (CUDA itself, gaps) is not in it."""
        return self.costs.peak

    @property
    def bar(self) -> pd.Series:
        """The parts in GB (10^9 bytes), drawn together so far that `plots.stacked_bars` can show them."""
        return _bar(self.parts)

    @property
    def fits(self) -> bool | None:
        """Whether the GPU is large enough; None if its size was not said."""
        return None if self.settings.gpu_gb is None else missing(self.costs, self.settings) <= 0

    @property
    def missing(self) -> int:
        """Bytes that the GPU lacks; 0 if it fits."""
        return max(0, missing(self.costs, self.settings)) if self.settings.gpu_gb else 0

    @cached_property
    def largest_micro_batch(self) -> int | None:
        """With the length as it is; 0 if not even one sequence fits, None without a size of the GPU."""
        return None if self.fits is None else largest(self.settings, "micro_batch")

    @cached_property
    def largest_length(self) -> int | None:
        """In tokens, with the micro-batch as it is; 0 if not even one token fits, None without a size of the GPU."""
        return None if self.fits is None else largest(self.settings, "length")

    @cached_property
    def changes(self) -> list[Change]:
        """Single changes of a setting, the one that saves most first."""
        return changes(self.settings, self.costs)

    def __str__(self) -> str:
        rows = self.costs.moments[self.costs.moments.any(axis=1)]
        table = pd.concat([rows, rows.sum().to_frame("together").T]) / GB
        return "\n".join([self._title(), table.to_string(float_format="{:.2f}".format), *self._answers()])

    def _title(self) -> str:
        now = self.settings
        adapter = "" if now.method == "full" else f", r = {now.r}"
        extra = (", checkpointing" if now.checkpointing else "") + (", chunked loss" if now.chunked_loss else "")
        gpus = "" if now.gpus == 1 else f", {now.gpus} GPUs ({now.sharding})"
        return (
            f"{self.name}: {now.method}{adapter}, {now.precision}, {now.optimizer}, {now.micro_batch} x "
            f"{now.length:,} tokens{extra}{gpus}; {self.costs.trainable:,} of {self.costs.parameters:,} numbers are "
            f"trained\nGB on each GPU, at three moments of the backward pass:"
        )

    @property
    def name(self) -> str:
        """Of the model, as it was given."""
        model = self.settings.model
        return model if isinstance(model, str) else model.model_type

    def _answers(self) -> list[str]:
        """Whether it fits, by how much not, what would, and what buys most."""
        best = [f"{change.words} (-{change.saves / GB:.2f} GB)" for change in self.changes[:3]]
        lines = [f"What buys most: {'; '.join(best)}."]
        if self.fits is None:
            return [f"Peak {self.peak / GB:.2f} GB.", *lines]
        size, need = self.settings.gpu_gb, self.peak / GB
        if self.fits:
            first = f"Fits: {need:.2f} GB of {size:g} GB."
        else:
            first = f"Does not fit: {need:.2f} GB, {self.missing / GB:.2f} GB more than the {size:g} GB there are."
            if self.costs.pageable >= self.missing:
                first += f" With paging it runs: {self.costs.pageable / GB:.2f} GB of the states can leave the GPU."
        batch, length = self.largest_micro_batch, self.largest_length
        second = f"Largest micro-batch of {self.settings.length:,} tokens that fits: {batch or 'none'}. "
        second += f"Longest text, {self.settings.micro_batch} at a time: {f'{length:,} tokens' if length else 'none'}."
        return [first, second, *lines]

    def picture(self) -> Figure:
        """A bar for each moment, divided into parts, in GB."""
        bars = {name: _bar(parts) for name, parts in self.costs.moments.items()}
        return plots.stacked_bars(f"{self.name}, {self.settings.method}", "GB", pd.DataFrame(bars).T)

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain numbers and texts; bytes are whole numbers."""
        settings = asdict(self.settings) | {"model": self.name}
        return {
            "settings": settings,
            "parameters": self.costs.parameters,
            "trainable": self.costs.trainable,
            "moment": self.moment,
            "peak_bytes": self.peak,
            "bytes": {name: int(size) for name, size in self.parts.items()},
            "pageable_bytes": self.costs.pageable,
            "fits": self.fits,
            "missing_bytes": self.missing,
            "largest_micro_batch": self.largest_micro_batch,
            "largest_length": self.largest_length,
            "changes": [{"change": change.words, "saves_bytes": change.saves} for change in self.changes],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1)


def plan(model: str | PreTrainedConfig, **settings: Any) -> Plan:
    """What one training step of `model` takes, by part; nothing is downloaded but a config.json, and nothing computed.

    Args:
        model: a name of `PRESETS`, a size such as "7B", a folder, an id of the hub, or a configuration.
        settings: the other fields of `Settings`: `method`, `precision`, `r`, `micro_batch`, `length`, `gpu_gb`, ...

    Raises:
        ValueError: an unknown model, or a setting that cannot be; says what can.
    """
    now = Settings(model=model, **settings)
    return Plan(now, costs(now))


def _bar(parts: pd.Series) -> pd.Series:
    """Parts in bytes, drawn together and in GB."""
    return pd.Series({name: parts[list(members)].sum() / GB for name, members in BAR.items()})
