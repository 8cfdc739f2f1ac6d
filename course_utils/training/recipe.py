"""What decides one training run? A recipe: all of it, in one frozen value."""

from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import yaml

from course_utils.loading.cache import NAME

LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
ORDERS = ("group_by_length", "random", "sequential")
KINDS = {int: "a whole number", float: "a number", str: "text", dict: "fields with their values"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides one training run, but for the bytes of its data.

    The plain loop and `sft_trainer` take one, a study is a grid over its fields, and a record stores all of them: two
    runs whose recipes differ in any field are two runs. Units: `max_length` in tokens, `batch_size` in examples of one
    process, `steps` and `warmup_steps` in optimizer steps, of `accumulation` batches each. Two things the loops do in
    their own ways: what fills no batch at the end of a pass is left out by the plain loop, and a smaller batch in TRL;
    and TRL takes biases and norms out of `weight_decay`.

    Args:
        model, revision, precision, compute_dtype: as `loading.load_model` takes them; the last by its name ("bf16").
        adapter: PEFT's own configuration as a dict, such as `LORA`; None for full fine-tuning.
        trainable: without an adapter, a pattern (`re.search`) of the names of the parameters to train; None: all.
        data: what is learned from: a task of `data/tasks/`, "conversations", or a file for `chat.load_threads`.
        subset: which part of the data, in the words of the study that divides it.
        template, train_on, max_length: as `chat.encode_all` takes them; what is longer is left out.
        batch_order: as `batches.batches` takes it: "group_by_length" or "random" (both fixed by the seed, and another
            order in each pass), or "sequential".
        schedule: of the learning rate `lr`, by its name in transformers ("constant", "linear", "cosine", ...).
        optim: by its name in transformers; the plain loop has AdamW alone.
        max_grad_norm: gradients are clipped to this norm; 0 leaves them as they are.
        seed: of the adapter's random start, of the order of the data and of dropout.

    Raises:
        ValueError: a field cannot be what it is; names it.
    """

    model: str = NAME
    revision: str | None = None
    precision: str = "fp32"
    compute_dtype: str | None = None
    adapter: dict[str, Any] | None = None
    trainable: str | None = None
    data: str | None = None
    subset: str | None = None
    template: str = "guanaco"
    train_on: str = "answers"
    max_length: int | None = None
    steps: int
    batch_size: int = 8
    accumulation: int = 1
    batch_order: str = "random"
    lr: float
    schedule: str = "constant"
    warmup_steps: int = 0
    optim: str = "adamw_torch"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("lr", 0), ("batch_size", 1), ("accumulation", 1), ("warmup_steps", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be {least} or more.")
        if self.batch_order not in ORDERS:
            raise ValueError(f"Unknown batch_order {self.batch_order!r}; choose from {', '.join(ORDERS)}.")
        if self.warmup_steps and self.schedule == "constant":
            raise ValueError("schedule 'constant' has no warmup; choose 'constant_with_warmup', or warmup_steps=0.")
        if self.adapter and "peft_type" not in self.adapter:
            raise ValueError("adapter has no 'peft_type'; start from training.LORA, or add it ('LORA', 'IA3', ...).")
        if self.adapter and self.trainable:
            raise ValueError("An adapter decides itself what is trained; leave out trainable, or the adapter.")

    @property
    def method(self) -> str:
        """One word, "base" (nothing is trained), "full", or the type of the adapter ("lora")."""
        if not self.steps:
            return "base"
        return self.adapter["peft_type"].lower() if self.adapter else "full"

    def __str__(self) -> str:
        """One field a line."""
        return "\n".join(f"{name:14} {value}" for name, value in asdict(self).items())


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file: fields of `Recipe` by their names.

    Raises:
        ValueError: no YAML, a field that no recipe has or that is missing, or one that cannot be what it is; names it.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 ({error.reason}); save it as UTF-8.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} has no fields; write one a line, such as 'steps: 100'.")
    kinds = {field.name: field.type for field in fields(Recipe)}
    if unknown := sorted(map(str, set(found) - set(kinds))):
        raise ValueError(f"{path.name}: a recipe has no field {unknown[0]!r}; it has {', '.join(kinds)}.")
    try:
        return Recipe(**{name: _of_kind(name, value, kinds[name]) for name, value in found.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: {str(error).replace('Recipe.__init__()', 'it')}") from error


def as_yaml(recipe: Recipe) -> str:
    """The recipe as `read_recipe` reads it, with all of its fields."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False)


def _number(value: Any) -> Any:
    """The number that a text spells, since YAML reads 1e-3, without a point, as text; anything else as it is."""
    if isinstance(value, str):
        for kind in (int, float):
            with suppress(ValueError):
                return kind(value)
    return value


def _of_kind(name: str, value: object, annotation: Any) -> object:
    """The value of a field, which has to be of the kind that is written behind its name in `Recipe`."""
    kinds = [get_origin(each) or each for each in get_args(annotation) or (annotation,)]
    kind, number = kinds[0], _number(value)
    if value is None and NoneType in kinds:
        return None
    if kind in (int, float) and isinstance(number, (int, float)) and not isinstance(number, bool):
        with suppress(ValueError, OverflowError):
            if kind(number) == number:
                return kind(number)
    elif isinstance(value, dict) and kind is dict:
        return {key: _number(each) for key, each in value.items()}
    elif isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise ValueError(f"{name} is {value!r}; it has to be {KINDS[kind]}.")
