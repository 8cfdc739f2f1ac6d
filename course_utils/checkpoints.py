"""From where can an interrupted run go on? The newest whole checkpoint in its folder, if it is of the same run."""

import json
import sys
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from course_utils.datafiles import write_whole

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
    weights = list(checkpoint.glob("*.safetensors"))
    archives = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*.pth")]
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for path in weights:
            with safe_open(path, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return bool(weights) and all(zipfile.is_zipfile(path) for path in archives)


def check_same_run(folder: Path, identity: dict[str, object]) -> None:
    """Whether the checkpoints in `folder` are of the run that `identity` describes.

    Raises:
        ValueError: they are of another run; names what differs.
    """
    path = folder / IDENTITY
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    wanted = json.loads(_as_json(identity))
    differing = [name for name in wanted if stored.get(name) != wanted[name]]
    if differing:
        short = [name for name in differing if not isinstance(wanted[name], (dict, str)) and name in stored]
        what = [f"{name} {stored[name]} there, {wanted[name]} now" if name in short else name for name in differing]
        why = f"different: {'; '.join(what)}" if stored else f"there is no {IDENTITY} that describes it"
        raise ValueError(
            f"{folder} holds checkpoints of another run ({why}). Name another output_dir, or delete that folder."
        )


def claim(folder: Path, identity: dict[str, object]) -> None:
    """Write down of which run the checkpoints in `folder` will be."""
    write_whole(folder / IDENTITY, _as_json(identity))


def _as_json(identity: dict[str, object]) -> str:
    return json.dumps(identity, indent=1, default=lambda value: sorted(value) if isinstance(value, set) else str(value))
