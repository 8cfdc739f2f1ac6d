"""How much memory will it take, on the command line?

python -m course_utils.memory plan Llama-2-7B --method qlora --micro-batch 4 --length 1024 --gpu-gb 24
python -m course_utils.memory plan --params 7B --method lora --checkpointing --json
"""

import argparse
import sys
from dataclasses import fields
from types import UnionType
from typing import get_args, get_type_hints

from course_utils.core import console
from course_utils.memory.planned import plan
from course_utils.memory.presets import PRESETS
from course_utils.memory.settings import Settings


def parser() -> argparse.ArgumentParser:
    """One option for each setting; underscores are hyphens."""
    found = argparse.ArgumentParser(prog="python -m course_utils.memory", description=__doc__.splitlines()[0])
    command = found.add_subparsers(required=True).add_parser("plan", help="what a training step takes, by part")
    command.add_argument("model", nargs="?", help=f"a folder, an id of the hub, or one of {', '.join(PRESETS)}")
    command.add_argument("--params", help="instead of a model: a size such as 7B, of LLaMA's shape")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.add_argument("--picture", metavar="FILE", help="write the parts as bars, too (png, svg, pdf)")
    hints = get_type_hints(Settings)
    for field in fields(Settings):
        if field.name == "model":
            continue
        option, kind = f"--{field.name.replace('_', '-')}", hints[field.name]
        if kind is bool:
            command.add_argument(option, action="store_true")
        elif field.name == "target_modules":
            command.add_argument(option, nargs="+", default="all-linear")
        else:
            command.add_argument(option, type=_plain(kind), default=field.default)
    return found


def _plain(kind: type | UnionType) -> type:
    """Of "a number or nothing", the number."""
    return next((each for each in get_args(kind) if each is not type(None)), kind)


def main(arguments: list[str] | None = None) -> None:
    """Print the plan; what cannot be planned ends with a sentence on stderr and status 2."""
    console.accept_all()
    asked = parser()
    chosen = vars(asked.parse_args(arguments))
    model, size, as_json, picture = (chosen.pop(name) for name in ("model", "params", "json", "picture"))
    if (model is None) == (size is None):
        asked.error("give a model or --params, one of them")
    targets = chosen["target_modules"]
    chosen["target_modules"] = targets if isinstance(targets, str) else tuple(targets) if targets[1:] else targets[0]
    try:
        found = plan(model or size, **chosen)
        print(found.to_json() if as_json else found)
        if picture:
            found.picture().savefig(picture)
            print(f"written: {picture}", file=sys.stderr)
    except (OSError, ValueError) as error:
        asked.error(str(error))


if __name__ == "__main__":
    main()
