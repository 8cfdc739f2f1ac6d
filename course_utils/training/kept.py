"""What if there is no time to train? Then a lesson's run is put in place that was made before, and says so."""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from course_utils import machine
from course_utils.core import files
from course_utils.datafiles.collection import named_file
from course_utils.training.loop import History


def keep(model: nn.Module, history: History, name: str, folder: Path | None = None) -> Path:
    """Write down what a run has trained, in bfloat16, and its losses: `data/kept/<name>.safetensors`."""
    weights = {key: weight.detach().to(torch.bfloat16).contiguous() for key, weight in _trained(model).items()}
    run = {"losses": history.losses, "tokens": history.tokens, "seconds": history.seconds}
    path = (folder or files.data_dir() / "kept") / f"{name}.safetensors"
    files.write_whole(path, save(weights, metadata={"run": json.dumps(run), "machine": machine.describe()}))
    return path


@torch.no_grad()
def kept(model: nn.Module, name: str) -> History:
    """Put a kept run on the model instead of training it, print that it was not trained here, and return its history.

    The model is one as the lesson builds it, with the same parameters to train. Their values were rounded to bfloat16.
    The losses (nats per supervised token), tokens and seconds are those of the machine that trained.

    Raises:
        ValueError: there is no such run (names those there are), or its parameters are not those of this model.
    """
    path = named_file("kept run", "kept", f"{name}.safetensors")
    with safe_open(path, "pt") as file:
        about = file.metadata()
    weights, trained = load_file(path), _trained(model)
    if {key: each.shape for key, each in weights.items()} != {key: each.shape for key, each in trained.items()}:
        raise ValueError(
            f"{path} has {len(weights)} trained parameters, and they are not the {len(trained)} of this model: run the "
            "lesson up to the cell that trains, then call kept() with the model that it trains."
        )
    for key, weight in weights.items():
        trained[key].copy_(weight)
    history = History(**json.loads(about["run"]))
    print(f"Loaded, not trained: {len(history.losses)} steps on {about['machine']}", file=sys.stderr)
    return history


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
