"""What does an adapter say of itself? Its model card, written from what its training left."""

from dataclasses import dataclass

import yaml

from course_utils import loading, machine
from course_utils.training.recipe import Recipe, as_yaml


@dataclass(frozen=True)
class Run:
    """What a card states of a training: nats per supervised token, and numbers of threads."""

    name: str
    recipe: Recipe
    base: str
    trained_on: int
    held_out: int
    losses: list[float]
    before: float | None
    after: float | None
    processes: int


def model_card(run: Run) -> str:
    """The model card, Markdown behind the header that the hub reads."""
    recipe = run.recipe
    header = {
        "base_model": run.base,
        "library_name": "peft" if recipe.adapter else "transformers",
        "tags": [recipe.method, "sft"],
    }
    few = max(1, len(run.losses) // 10)
    first, last = (sum(part) / few for part in (run.losses[:few], run.losses[-few:]))
    processes = f"{run.processes} process{'es' * (run.processes > 1)}"
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n# {run.name}",
        f"{run.base}, fine-tuned ({recipe.method}) on {run.trained_on} threads of `{recipe.data}`, in "
        f"{len(run.losses)} steps, by {processes}.",
        f"Loss on {run.held_out} held-out threads, in nats per supervised token: {run.before:.3f} before training, "
        f"{run.after:.3f} after it."
        if run.held_out
        else "No thread was held out, so nothing is known of others than those that it was trained on.",
        f"Loss in training: {first:.3f} over the first {few} steps, {last:.3f} over the last {few}. One run, one seed: "
        "no interval. Nobody has looked at its answers for truth or harm.",
        f"Ask it in the template that it was trained in, `{recipe.template}`:",
        f"```python\n{loads(recipe)}\n```",
        f"The recipe:\n\n```yaml\n{as_yaml(recipe)}```",
        f"Made with {machine.describe()}.",
    ]
    return "\n\n".join(parts) + "\n"


def loads(recipe: Recipe) -> str:
    """The lines that load what was trained, in Python; an adapter on weights like those that it was trained on.

    Without `quantization_config`, the base of an adapter would come as it was published: other weights.
    """
    dtype = loading.DTYPES.get(recipe.precision) or loading.DTYPES.get(recipe.compute_dtype) or machine.fast_dtype()
    auto, options = "AutoPeftModelForCausalLM" if recipe.adapter else "AutoModelForCausalLM", f"dtype={dtype}"
    lines = ["import torch", f"from {'peft' if recipe.adapter else 'transformers'} import {auto}"]
    if recipe.adapter and recipe.precision in loading.QUANTIZED:
        how = ["load_in_8bit=True"]
        if recipe.precision != "int8":
            how = ["load_in_4bit=True", f'bnb_4bit_quant_type="{recipe.precision.removesuffix("-dq")}"']
            how += [f"bnb_4bit_use_double_quant={recipe.precision.endswith('-dq')}", f"bnb_4bit_compute_dtype={dtype}"]
        lines += ["from transformers import BitsAndBytesConfig", "", "quantized = BitsAndBytesConfig("]
        lines += [*(f"    {each}," for each in how), ")"]
        options += ", quantization_config=quantized"
    else:
        lines.append("")
    return "\n".join([*lines, f"model = {auto}.from_pretrained(folder, {options})"])
