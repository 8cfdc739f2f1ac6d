"""Which tensors does a model have, and which are trained? Built on the meta device, where tensors take no memory."""

import copy
import functools
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from course_utils import loading
from course_utils.memory.frameworks import HABITS
from course_utils.memory.settings import Settings


@dataclass(frozen=True)
class Skeleton:
    """A model with a few layers that stand for all: its first, and one of each kind among the others.

    `times` says how many layers of the whole model each of them stands for.
    """

    model: nn.Module
    times: tuple[int, ...]

    @property
    def layers(self) -> nn.ModuleList:
        return _stack(self.model)

    @property
    def head(self) -> nn.Parameter | None:
        """The weight of the output head, which may be that of the embedding."""
        head = self.model.get_output_embeddings()
        return None if head is None else head.weight

    @property
    def embedding(self) -> nn.Parameter:
        return self.model.get_input_embeddings().weight

    def parameters(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Every parameter of the skeleton, and how often the whole model has it; a tied one comes once."""
        times = {id(p): n for layer, n in zip(self.layers, self.times, strict=True) for p in layer.parameters()}
        return ((p, times.get(id(p), 1)) for p in self.model.parameters())

    def matrices(self) -> set[int]:
        """The identities of the weights of linear layers."""
        return {id(m.weight) for m in self.model.modules() if isinstance(m, (nn.Linear, Conv1D))}


def bare(config: PreTrainedConfig, settings: Settings) -> Skeleton:
    """The model itself, all of it trainable.

    Raises:
        ValueError: transformers has no code for it, or the code has no list of layers.
    """
    dtype = torch.float32 if settings.precision == "fp32" else torch.bfloat16
    fused = settings.framework == "transformers" and settings.attention != "eager"  # others only lend their tensors
    attention = "sdpa" if fused else "eager"
    return _bare(type(config), json.dumps(config.to_dict(), sort_keys=True, default=str), dtype, attention)


def adapted(config: PreTrainedConfig, settings: Settings) -> Skeleton:
    """The model as it is trained: with PEFT's adapter, unless all of it is trained.

    Raises:
        ValueError: as `bare`; or PEFT finds none of the modules that are to be adapted.
    """
    found = bare(config, settings)
    if settings.method == "full":
        return found
    name = settings.adapter_precision or HABITS["transformers"].adapters
    return _adapted(found, settings.r, settings.target_modules, loading.DTYPES[name])


@functools.lru_cache(maxsize=16)
def _adapted(found: Skeleton, r: int, targets: str | tuple[str, ...], dtype: torch.dtype) -> Skeleton:
    model = copy.deepcopy(found.model)
    swapped = any(
        isinstance(module, Conv1D) for module in model.modules()
    )  # GPT-2 stores its weights the other way round
    config = LoraConfig(r=r, target_modules=targets if isinstance(targets, str) else list(targets))
    config.fan_in_fan_out = swapped
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weights that a preset does not have
        model = get_peft_model(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return Skeleton(model.train(), found.times)


@functools.lru_cache(maxsize=8)
def _bare(kind: type[PreTrainedConfig], text: str, dtype: torch.dtype, attention: str) -> Skeleton:
    config = kind.from_dict(json.loads(text))
    try:
        with torch.device("meta"):
            return cut_down(AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention))
    except ValueError as error:
        raise ValueError(
            f"transformers cannot build this {config.model_type} with attention {attention!r} "
            f"({str(error).split('. ')[0]}). If it has no fused attention, plan with attention='eager'."
        ) from error


def cut_down(model: nn.Module) -> Skeleton:
    """Of a whole model, take out the layers for which others can stand: those with the same code and shapes."""
    layers = _stack(model)
    kinds = [(type(layer), tuple(p.shape for p in layer.parameters())) for layer in layers]
    others = Counter(kinds[1:])
    chosen = [0, *sorted(kinds.index(kind, 1) for kind in others)]
    for place in reversed(range(len(layers))):
        if place not in chosen:
            del layers[place]
    return Skeleton(model.train(), (1, *(others[kinds[place]] for place in chosen[1:])))


def _stack(model: nn.Module) -> nn.ModuleList:
    """The list of a model's layers: those that transformers checkpoints."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) and isinstance(module[0], GradientCheckpointingLayer):
            return module
    raise ValueError(f"{type(model).__name__} has no list of layers that the planner knows; plan by its size: '7B'.")
