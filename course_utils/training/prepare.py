"""How does a recipe become a model to train? Loaded in its format, with its adapter, or with what is to be trained."""

import re

import torch
from peft import PeftConfig, PeftType, get_peft_config, get_peft_model
from torch import nn

from course_utils import loading
from course_utils.training.recipe import Recipe


def prepare_model(recipe: Recipe, device: str | None = None) -> nn.Module:
    """The model of a recipe, ready to be trained; the start of its adapter is fixed by the recipe's seed.

    Raises:
        ValueError, OSError: as `loading.load_model`; or `trainable` names no parameter.
    """
    if recipe.compute_dtype not in (None, *loading.DTYPES):
        raise ValueError(f"Unknown compute_dtype {recipe.compute_dtype!r}; choose from {', '.join(loading.DTYPES)}.")
    try:
        wanted = re.compile(recipe.trainable or "")
    except re.error as error:
        raise ValueError(f"trainable {recipe.trainable!r} is no pattern: {error}.") from error
    model = loading.load_model(
        recipe.model,
        recipe.precision,
        revision=recipe.revision,
        compute_dtype=loading.DTYPES[recipe.compute_dtype] if recipe.compute_dtype else None,
        device=device,
    )
    if config := adapter_config(recipe):
        torch.manual_seed(recipe.seed)
        return get_peft_model(model, config)
    if recipe.trainable:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(bool(wanted.search(name)))
        if not any(parameter.requires_grad for parameter in model.parameters()):
            first = next(model.named_parameters())[0]
            raise ValueError(f"trainable {recipe.trainable!r} names no parameter; the first one's name is {first!r}.")
    return model


def adapter_config(recipe: Recipe) -> PeftConfig | None:
    """PEFT's own configuration of the recipe's adapter, if it has one.

    Raises:
        ValueError: PEFT has no such method, the method no such field, or it is not for training a model that answers.
    """
    if not recipe.adapter:
        return None
    kind = recipe.adapter["peft_type"]
    if not isinstance(kind, str) or kind not in PeftType.__members__:
        raise ValueError(f"adapter: PEFT knows no peft_type {kind!r}; it has {', '.join(PeftType.__members__)}.")
    if (task := recipe.adapter.get("task_type", "CAUSAL_LM")) != "CAUSAL_LM":
        raise ValueError(f"adapter: task_type is {task!r}; models that answer have 'CAUSAL_LM'.")
    if recipe.adapter.get("inference_mode"):
        raise ValueError("adapter: with inference_mode nothing is trained. Leave it out.")
    try:
        return get_peft_config({**recipe.adapter, "revision": recipe.revision})
    except (TypeError, ValueError) as error:
        raise ValueError(f"adapter: PEFT cannot read it: {error}. Its fields are those of PEFT's {kind}.") from error
