"""From where can an interrupted run go on? The newest whole checkpoint in its folder, if it is of the same run."""

import hashlib
import json
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import Trainer

from course_utils.core.files import write_whole
from course_utils.training.recipe import Recipe

DECIDING = (  # fields of SFTConfig that decide what is learned, beside those that the recipe says
    "world_size lr_scheduler_kwargs optim_args adam_beta1 adam_beta2 adam_epsilon bf16 fp16 neftune_noise_alpha "
    "data_seed dataloader_drop_last"
).split()
PREFIX, IDENTITY = "checkpoint-", "run.json"  # transformers names the folders; the file says of which run they are


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint below `folder` that was written to its end; one that was not is named on stderr."""
    steps = [path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*")]
    for step in sorted((int(step) for step in steps if step.isdecimal()), reverse=True):
        path = folder / f"{PREFIX}{step}"
        if _is_whole(path):
            return path
        print(f"{path} was not written to its end: the one before is taken, or the run starts over.", file=sys.stderr)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """Whether every file of it opens; `trainer_state.json` is written last, and a zip archive ends with its index."""
    weights = list(checkpoint.rglob("*.safetensors"))  # adapters with a name have folders of their own
    archives = {checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("*.pt*")}
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for index in checkpoint.glob("*.index.json"):
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            weights += [checkpoint / shard for shard in shards]
        for path in weights:
            with safe_open(path, framework="pt"):
                pass
    except (OSError, LookupError, ValueError, SafetensorError):
        return False
    return bool(weights) and all(zipfile.is_zipfile(path) for path in archives)


def identity(trainer: Trainer, recipe: Recipe) -> dict[str, object]:
    """What decides a run: its recipe, the model and the adapter as they are, their format, and a hash of the data."""
    config = trainer.model.config
    found = asdict(recipe) | {name: getattr(trainer.args, name) for name in DECIDING}
    del found["adapter"]  # the model's own is looked at below, whoever added it
    if recipe.schedule == "constant":  # other schedules look ahead to the end; with this one a run may be made longer
        del found["steps"]
    stored = getattr(config, "quantization_config", None)
    stored = stored.to_dict() if hasattr(stored, "to_dict") else stored
    dtype = trainer.model.get_input_embeddings().weight.dtype
    found |= {"base": config._name_or_path, "dtype": dtype, "quantization": stored}
    adapters = getattr(trainer.model, "peft_config", {})
    for name, adapter in adapters.items():
        found |= {f"{name}.{field}": value for field, value in adapter.to_dict().items() if field != "peft_version"}
    data = hashlib.sha256(json.dumps(list(trainer.train_dataset)).encode()).hexdigest()
    return {**found, "adapters": list(adapters), "data": data}


def check_same_run(folder: Path, described: dict[str, object]) -> None:
    """Whether the checkpoints in `folder` are of the run that is described.

    Raises:
        ValueError: they are of another run; names what differs.
    """
    path = folder / IDENTITY
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    wanted = json.loads(_as_json(described))
    # a newer PEFT has more fields, which say nothing of the run
    differing = [name for name in wanted if name in stored and stored[name] != wanted[name]]
    if differing or not stored:
        short = [name for name in differing if name != "data" and not isinstance(wanted[name], (dict, list))]
        what = [f"{name} {stored[name]} there, {wanted[name]} now" if name in short else name for name in differing]
        why = f"different: {'; '.join(what)}" if stored else f"there is no {IDENTITY} that describes it"
        raise ValueError(
            f"{folder} holds checkpoints of another run ({why}). Name another output_dir, or delete that folder."
        )


def claim(folder: Path, described: dict[str, object]) -> None:
    """Write down of which run the checkpoints in `folder` will be."""
    write_whole(folder / IDENTITY, _as_json(described))


def _as_json(described: dict[str, object]) -> str:
    return json.dumps(
        described, indent=1, default=lambda value: sorted(value) if isinstance(value, set) else str(value)
    )
