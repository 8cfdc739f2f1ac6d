"""Is a saved adapter whole, and made for this model? If so it is put on it; if not, an error says what is wrong."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
AGAIN = "save it again with `model.save_pretrained(folder)`"
# Starts of LoRA that change the frozen weights, by a draw or by data: loading the adapter does not repeat the change.
NOT_REPEATED = ("pissa_niter", "lora_ga", "corda", "loftq")
Shapes = dict[str, tuple[int, ...]]


def changes_the_base(config: PeftConfig | None) -> str | None:
    """The start of an adapter that also changes the frozen weights, which its file does not hold; None for others."""
    start = getattr(config, "init_lora_weights", None)
    return start if isinstance(start, str) and start.startswith(NOT_REPEATED) else None


class AdapterError(ValueError):
    """An adapter that cannot be put on a model as it was saved; the message names the file and the way out."""


def load_adapter(model: nn.Module, folder: str | Path, *, name: str = "default", trainable: bool = False) -> PeftModel:
    """Put an adapter that PEFT saved on a model; the files are checked first, and a model that they do not fit is left
    as it is.

    PEFT itself warns of weights that are missing, or ignores them, and leaves those of the adapter's random start.

    Args:
        model: a model of transformers; or a `PeftModel`, to which the adapter is added beside those that it has
            (`model.set_adapter(name)` turns to it).
        folder: what `save_pretrained` wrote: `adapter_config.json` and `adapter_model.safetensors`.
        trainable: whether its weights require gradients.

    Raises:
        AdapterError: a file is missing or was not written to its end; there are no weights in it, or other ones than
            the configuration asks for; it was made for another base model; or a reload would not give what was saved.
    """
    folder = Path(folder)
    config, found = _config(folder), _shapes(folder)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    _check_base(folder, config, base)
    _check_repeatable(folder, config, trainable)
    if isinstance(model, PeftModel):
        _check_beside(folder, config, model, name)
    _check_weights(folder, config, base, found)
    if isinstance(model, PeftModel):
        model.load_adapter(str(folder), name, is_trainable=trainable)
    else:
        model = PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)
    if config.is_prompt_learning:
        model.prompt_encoder[name].requires_grad_(trainable)  # PEFT leaves virtual tokens trainable
    return model


def _config(folder: Path) -> PeftConfig:
    path = folder / CONFIG
    if not path.is_file():
        raise AdapterError(_nothing_there(folder))
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{path} was not written to its end ({error}): {AGAIN}.") from error
    kind = fields.get("peft_type") if isinstance(fields, dict) else None
    if kind not in PeftType.__members__:
        raise AdapterError(f"{path}: its peft_type is {kind!r}, which is no method of this PEFT; {AGAIN}.")
    try:
        return PeftConfig.from_pretrained(str(folder))
    except (TypeError, ValueError) as error:
        raise AdapterError(f"{path} is no configuration of {kind}: {error}. Mend it, or {AGAIN}.") from error


def _nothing_there(folder: Path) -> str:
    """Why a folder holds no adapter: there is none, it holds a model, or the adapters have folders of their own."""
    if not folder.is_dir():
        return f"{folder} is no folder: give the one that `model.save_pretrained(folder)` wrote."
    inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if inside:
        return f"{folder} has no {CONFIG}; but its folders {', '.join(inside)} do: name one of them."
    if (folder / "config.json").is_file():
        return (
            f"{folder} holds a model, not an adapter ({CONFIG} is missing): use `loading.load_model({str(folder)!r})`."
        )
    return f"{folder} has no {CONFIG}, so it holds no adapter: {AGAIN}."


def _shapes(folder: Path) -> Shapes:
    """The shapes of the saved weights, by name; the weights themselves are not read."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        why = " Its weights are in a .bin, a pickle, which can run any code when it is read." if pickled else ""
        raise AdapterError(f"{folder} has no {WEIGHTS}.{why} In the process that has the adapter, {AGAIN}.")
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118, no dict
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path} was not written to its end, or is damaged ({error}): {AGAIN}.") from error
    if not found:
        raise AdapterError(f"{path} is empty, it holds no weights; with several processes, gather them, then {AGAIN}.")
    return found


def _check_base(folder: Path, config: PeftConfig, base: nn.Module) -> None:
    """Whether the base model has the name of the one that the adapter was made for, as far as both have one."""
    made_for, given = config.base_model_name_or_path, getattr(base, "name_or_path", None)
    if made_for and given and made_for != given:
        raise AdapterError(
            f"{folder / CONFIG}: the adapter was made for {made_for!r}, and this model is {given!r}. Load that one, "
            "`loading.load_model(...)`; if both are the same weights, write this model's name into "
            "base_model_name_or_path there."
        )


def _check_repeatable(folder: Path, config: PeftConfig, trainable: bool) -> None:
    """Whether the adapter works on the base as it is, and can be trained on from what was saved."""
    if start := changes_the_base(config):
        raise AdapterError(
            f"{folder / CONFIG}: its init_lora_weights {start!r} also changed the frozen weights, which the file does "
            "not hold, and loading cannot repeat. Save it as plain LoRA: before training "
            "`model.save_pretrained(start)`, and after it `model.save_pretrained(folder, "
            "path_initial_model_for_weight_conversion=start)`."
        )
    if trainable and (config.peft_type == PeftType.P_TUNING or getattr(config, "prefix_projection", False)):
        raise AdapterError(
            f"{folder / WEIGHTS} holds the virtual tokens, not the encoder that made them, so training cannot go on "
            "from it. Load it with trainable=False, or train a new one."
        )


def _check_beside(folder: Path, config: PeftConfig, model: PeftModel, name: str) -> None:
    """Whether the adapter can stand beside those that the model has."""
    if name in model.peft_config:
        there = ", ".join(model.peft_config)
        raise AdapterError(f"The model already has adapters named {there}: give the one in {folder} another name.")
    kinds = {other.peft_type.value for other in model.peft_config.values()}
    if kinds != {config.peft_type.value}:
        raise AdapterError(
            f"{folder / CONFIG} is of type {config.peft_type.value}, those of the model of {', '.join(kinds)}: PEFT "
            "puts only one type on a model. Load it on a model of its own."
        )


def _check_weights(folder: Path, config: PeftConfig, base: nn.Module, found: Shapes) -> None:
    """Whether the file holds exactly what the configuration makes of this model, in these shapes."""
    try:
        wanted, own = _expected(config, base)
    except ValueError as error:  # target modules that the model does not have
        raise AdapterError(f"{folder / CONFIG} does not fit this model: {error}") from error
    known = wanted | {key: shape for key, shape in own.items() if key in found}  # the embedding, which PEFT may save
    lists = {
        "missing": sorted(known.keys() - found.keys()),
        "not of this adapter": sorted(found.keys() - known.keys()),
        "of another shape": [
            f"{key} {found[key]}, here {known[key]}"
            for key in sorted(found.keys() & known.keys())
            if found[key] != known[key]
        ],
    }
    if wrong := [f"{len(keys)} {what} (the first: {keys[0]})" for what, keys in lists.items() if keys]:
        raise AdapterError(
            f"{folder / WEIGHTS} does not fit {CONFIG} and this model: weights {'; '.join(wrong)}. Load the model that "
            f"it was trained on ({config.base_model_name_or_path or 'not named there'}), or {AGAIN}."
        )


def _expected(config: PeftConfig, base: nn.Module) -> tuple[Shapes, Shapes]:
    """The shapes that PEFT would save, and those of the model's own weights; nothing is computed or stored."""
    config = copy.deepcopy(config)
    config.base_model_name_or_path, config.inference_mode = None, True
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # how it starts changes no shape
    given_away = {}
    if config.peft_type == PeftType.ADALORA:
        given_away, config.rank_pattern = config.rank_pattern or {}, None
    with torch.device("meta"):
        adapted = get_peft_model(type(base)(base.config), config)
    own = {key: tuple(value.shape) for key, value in adapted.state_dict().items()}
    if config.is_prompt_learning:
        return {"prompt_embeddings": tuple(adapted.prompt_encoder["default"].embedding.weight.shape)}, {}
    saved = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return _of_kept_ranks({key: tuple(value.shape) for key, value in saved.items()}, given_away), own


def _of_kept_ranks(shapes: Shapes, pattern: dict[str, list[bool]]) -> Shapes:
    """Of each layer AdaLoRA saves the ranks that it has not given away; `pattern` says which these are."""
    shapes = dict(shapes)
    for name, kept in pattern.items():
        layer = "base_model.model." + name.rpartition(".lora_E")[0]
        for part, axis in (("lora_A", 0), ("lora_E", 0), ("lora_B", 1)):
            if shape := shapes.get(f"{layer}.{part}"):
                shapes[f"{layer}.{part}"] = tuple(sum(kept) if axis == place else n for place, n in enumerate(shape))
    return shapes
