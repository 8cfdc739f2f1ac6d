"""How is a recipe in a file run, on one device or on many? From the data to the adapter with its model card.

python -m course_utils.training recipe.yaml
accelerate launch --config_file recipes/accelerate/ddp.yaml -m course_utils.training recipe.yaml

The same command goes on where it was stopped. What the recipe's `data` names is looked for beside the recipe.
"""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat, loading, machine
from course_utils.batches import collate, token_losses
from course_utils.chat import Example
from course_utils.core import console, files, noise
from course_utils.core.rows import NothingLeft
from course_utils.loading.adapters import changes_the_base
from course_utils.training.card import Run, model_card
from course_utils.training.checkpoints import IDENTITY
from course_utils.training.prepare import adapter_config, prepare_model
from course_utils.training.recipe import Recipe, as_yaml, read_recipe
from course_utils.training.sft import run, sft_trainer
from course_utils.training.traps import check


def examples(recipe: Recipe, folder: Path, split: str, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """The encoded threads of one split of the recipe's data.

    Raises:
        ValueError: the recipe names no data, or as `chat.load_threads` and `chat.encode_all`.
    """
    if not recipe.data:
        raise ValueError("The recipe names no data; add 'data: ' and a file of conversations, or 'conversations'.")
    own = folder / Path(recipe.data).expanduser()
    path = files.data_dir() / "conversations.jsonl" if recipe.data == "conversations" else own
    how = {"train_on": recipe.train_on, "max_length": recipe.max_length}
    roles = chat.TEMPLATES[recipe.template].heads if recipe.template in chat.TEMPLATES else None
    return chat.encode_all(chat.load_threads(path, split, roles), tokenizer, recipe.template, **how)


def train(path: Path, output_dir: Path) -> Path:
    """Train by the recipe in `path`; what is trained, the tokenizer, the recipe and the card go to `output_dir`.

    Raises:
        ValueError: recipe or data are broken, a trap is in them (`training.check`), or `output_dir` is another run's;
            says which.
    """
    recipe = _checked(read_recipe(path))
    _check_folder(output_dir, recipe, path)
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    trained_on, held_out = examples(recipe, path.parent, "train", tokenizer), []
    try:
        held_out = examples(recipe, path.parent, "validation", tokenizer)
    except NothingLeft as error:  # a small file may have nothing in this split
        print(f"No conversation is held out: {error}", file=sys.stderr)
    if found := check(trained_on, tokenizer, recipe.template, args=recipe):
        raise ValueError("\n".join(map(str, found)))
    model = prepare_model(replace(recipe, adapter=None))  # the trainer adds it
    saving = {"save_strategy": "steps", "save_steps": max(1, recipe.steps // 10), "save_total_limit": 2}
    trainer = sft_trainer(model, tokenizer, trained_on, output_dir, recipe, **saving)
    before = mean_loss(trainer.model, held_out, recipe.batch_size)
    losses = run(trainer).losses
    after = mean_loss(trainer.model, held_out, recipe.batch_size)
    trainer.save_model(str(output_dir))
    base, processes = model.config.name_or_path, trainer.args.world_size
    if trainer.is_world_process_zero():
        said = Run(path.stem, recipe, base, len(trained_on), len(held_out), losses, before, after, processes)
        files.write_whole(output_dir / files.RECIPE, as_yaml(recipe))
        files.write_whole(output_dir / "README.md", model_card(said))
    return output_dir


def _checked(recipe: Recipe) -> Recipe:
    """The recipe, with the folder of its model named so that it is found from everywhere.

    Raises:
        ValueError: what would fail only after the model was loaded, or after the training.
    """
    if start := changes_the_base(adapter_config(recipe)):
        raise ValueError(
            f"adapter: init_lora_weights {start!r} also changes the frozen weights, which no adapter's file holds. "
            "Leave it out."
        )
    base = Path(recipe.model).expanduser()
    if not base.is_dir():
        return recipe
    if recipe.revision:
        raise ValueError(f"revision is {recipe.revision!r}, and the model is a folder, which has none. Leave it out.")
    return replace(recipe, model=str(base.resolve()))


def _check_folder(folder: Path, recipe: Recipe, source: Path) -> None:
    """Whether what lies in the folder may be written over, by this recipe; with a constant rate a run may go on longer.

    Raises:
        ValueError: it was left by another recipe, by nobody's training, or is the recipe itself.
    """
    left, way_out = folder / files.RECIPE, "Name another with --output-dir"
    if left.resolve() == source.resolve():
        raise ValueError(f"{left} would be written over. {way_out}, or give the recipe another name.")
    if not left.exists():
        if (folder / "README.md").exists() and not (folder / IDENTITY).exists():
            raise ValueError(f"{folder} holds a README.md that no training has left there. {way_out}.")
        return
    there, now = (asdict(each) for each in (read_recipe(left), recipe))
    if recipe.schedule == "constant" and there["steps"] < recipe.steps:
        there["steps"] = recipe.steps
    if other := [f"{name} {there[name]} there, {now[name]} now" for name in now if there[name] != now[name]]:
        what = f"{folder} holds what another recipe has trained ({'; '.join(other)})"
        raise ValueError(f"{what}. {way_out}, or delete that folder.")


@torch.no_grad()
def mean_loss(model: nn.Module, held_out: list[Example], batch_size: int) -> float | None:
    """In nats per supervised token; None without examples. Every process computes all of it."""
    if not held_out:
        return None
    model.eval()
    cut = [held_out[start : start + batch_size] for start in range(0, len(held_out), batch_size)]
    return torch.cat([token_losses(model, collate(part)) for part in cut]).mean().item()


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    console.accept_all()
    noise.quiet()
    machine.keep_freed_memory()
    parser = argparse.ArgumentParser(prog="python -m course_utils.training", description="Train by a recipe.")
    parser.add_argument("recipe", type=Path, help="a YAML file with the fields of training.Recipe")
    parser.add_argument("--output-dir", type=Path, help="by default a folder beside the recipe, of its name")
    given = parser.parse_args(arguments)
    try:
        print(f"Done: {train(given.recipe, given.output_dir or given.recipe.with_suffix(''))}")
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{parser.prog}: {error}")


if __name__ == "__main__":
    main()
