"""What does an adapter say of itself? Its model card, written from what its training left."""

from dataclasses import asdict, dataclass

import yaml

from course_utils import machine
from course_utils.training.recipe import Recipe


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


def card(run: Run) -> str:
    """The model card, Markdown behind the header that the hub reads."""
    recipe = run.recipe
    library, load = "transformers", "model = AutoModelForCausalLM.from_pretrained(folder)"
    if recipe.adapter:
        library, load = "peft", "model = AutoPeftModelForCausalLM.from_pretrained(folder)"
    header = {"base_model": run.base, "library_name": library, "tags": [recipe.method, "sft"]}
    few = max(1, len(run.losses) // 10)
    first, last = (sum(part) / few for part in (run.losses[:few], run.losses[-few:]))
    processes = f"{run.processes} process{'es' * (run.processes > 1)}"
    parts = [
        f"---\n{_yaml(header)}\n---\n# {run.name}",
        f"{run.base}, fine-tuned ({recipe.method}) on {run.trained_on} threads of `{recipe.data}`, in "
        f"{len(run.losses)} steps, by {processes}.",
        f"Loss on {run.held_out} held-out threads, in nats per supervised token: {run.before:.3f} before training, "
        f"{run.after:.3f} after it."
        if run.held_out
        else "No thread was held out, so nothing is known of others than those that it was trained on.",
        f"Loss in training: {first:.3f} over the first {few} steps, {last:.3f} over the last {few}. One run, one seed: "
        "no interval. Nobody has looked at its answers for truth or harm.",
        f"Ask it in the template that it was trained in, `{recipe.template}`:",
        f"```python\n{load}\n```",
        f"The recipe:\n\n```yaml\n{_yaml(asdict(recipe))}\n```",
        f"Made with {machine.describe()}.",
    ]
    return "\n\n".join(parts) + "\n"


def _yaml(fields: dict[str, object]) -> str:
    return yaml.safe_dump(fields, sort_keys=False).strip()
