"""Where is an adapter worth its parameters? LoRA of one size, put on different layers, at two rates."""

from typing import Any

from course_utils.studies import methods
from course_utils.studies.records import Study, grid
from course_utils.training import LORA, Recipe

BUDGET = 1_520_640  # trained parameters, in every place: those of the MLP at rank 8
ATTENTION, MLP = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
RATES = [3e-4, 1e-3]  # as in `ranks`


def _lora(r: int, targets: list[str], **others: int) -> dict[str, Any]:
    """LoRA of rank `r` on these layers, but for some `others`, without which the budget would not be met exactly."""
    return {**LORA, "r": r, "target_modules": targets, "rank_pattern": others}


# lora_alpha stays what it is, so that ranks share their best rate (LoRA Without Regret; `ranks` does the same)
PLACES = {
    "q": _lora(44, ["q_proj"]),
    "q, v": _lora(26, ["q_proj", "v_proj"], v_proj=27),
    "q, k, v, o": _lora(13, ATTENTION, v_proj=14),
    "MLP": _lora(8, MLP),
    "all": _lora(5, ATTENTION + MLP, v_proj=6, o_proj=6, down_proj=4),
}


def run(recipe: Recipe) -> dict[str, Any]:
    """`methods.score`, with the name of the place."""
    return {
        "place": next(name for name, adapter in PLACES.items() if adapter == recipe.adapter),
        **methods.score(recipe),
    }


def _recipes() -> list[Recipe]:
    places = grid(methods.ADDITION, adapter=list(PLACES.values()), lr=RATES, seed=methods.SEEDS)
    return sorted(places, key=lambda recipe: recipe.seed)


STUDY = Study("placement", _recipes(), run, methods.SCORING, ("tasks/addition.jsonl", "passages.jsonl"), minutes=1.3)
