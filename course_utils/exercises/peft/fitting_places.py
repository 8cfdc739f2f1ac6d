"""How do you spend a budget of parameters?

The second half compared places at one budget, and an adapter had the same rank everywhere, but for rounding. PEFT can
give places ranks of their own: `rank_pattern` is a dict from names to ranks. (A name is a regular expression, which has
to match the name of a layer up to its end.) `places(**fields)` puts `LoraConfig(**fields)` on a small Llama whose heads
are shared, and lists for each of its seven places the rank, the scale in front of `B A`, the number of layers, and the
parameters in all of them.

Return the fields, as a dict, of an adapter that keeps four rules: all seven places in all four layers; rank 8 or more
on the four of the attention; a scale of 2 everywhere; and at most 90,000 parameters. `{"r": 8, "lora_alpha": 16,
"target_modules": "all-linear"}` keeps the first three. Call `places` as often as you like.
"""

import re
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import memory
from course_utils.exercises.exercise import Exercise

MOST, LAYERS, LOWEST_RANK, SCALE = 90_000, 4, 8, 2.0
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


def places(**fields) -> pd.DataFrame:
    """Rank, scale, layers and parameters of each place, if LoraConfig(**fields) is put on a small Llama."""
    shape = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.device("meta"):
        model = get_peft_model(LlamaForCausalLM(LlamaConfig(vocab_size=8, **shape, **heads)), LoraConfig(**fields))
    adapted = [(name.split(".")[-1], layer) for name, layer in model.named_modules() if hasattr(layer, "lora_A")]
    rows = [
        (place, layer.r["default"], layer.scaling["default"], memory.count_parameters(layer, trainable=True))
        for place, layer in adapted
    ]
    table = pd.DataFrame(rows, columns=["place", "rank", "scale", "parameters"])
    each = table.groupby(["place", "rank", "scale"], sort=False)["parameters"]
    return each.agg(layers="size", parameters="sum").reset_index()


def fitting_places() -> dict:
    """Fields of a LoraConfig: all places, rank 8 or more on the attention, scale 2, at most 90,000 parameters."""
    feed_forward = "gate_proj|up_proj|down_proj"
    ranks = {"r": 8, "rank_pattern": {feed_forward: 2}}
    return {**ranks, "lora_alpha": 16, "alpha_pattern": {feed_forward: 4}, "target_modules": "all-linear"}


def cases() -> dict[str, tuple]:
    return {"90,000 parameters": ()}


def outcome(answer: Callable[[], dict[str, Any]]) -> dict[str, str]:
    """Whether each rule is kept; if not, what was found.

    Raises:
        ValueError: it is no dict, no layer gets an adapter, or a name is no regular expression.
        TypeError: LoraConfig has no such field.
    """
    fields = answer()
    if not isinstance(fields, dict):
        raise ValueError('Return a dict of fields, such as {"r": 8, "target_modules": "all-linear"}.')
    try:
        with warnings.catch_warnings(record=True) as idle:  # PEFT warns of a pattern that matches no layer
            warnings.simplefilter("always", RuntimeWarning)
            table = places(**fields)
    except re.error as error:
        raise ValueError(f"A name is no regular expression ({error}): `a_proj|b_proj` stands for two places.") from None
    low = table[table["place"].isin(ATTENTION) & (table["rank"] < LOWEST_RANK)]
    off = table[(table["scale"] - SCALE).abs() > 1e-3]
    layers = table.groupby("place")["layers"].sum().reindex([*ATTENTION, *FEED_FORWARD], fill_value=0)
    said = " ".join(str(warning.message) for warning in idle)
    missing = [f"{place} in {n} of {LAYERS} layers" for place, n in layers.items() if n != LAYERS]
    count = int(table["parameters"].sum())
    return {
        "places": ", ".join(missing) or "all",
        **{name: "matches no layer" if name in said else "as given" for name in ("rank_pattern", "alpha_pattern")},
        "attention": _listed(low, "rank") or "rank 8 or more",
        "scale": _listed(off, "scale") or "2 everywhere",
        "parameters": "at most 90,000" if count <= MOST else f"{count:,}",
    }


def _listed(rows: pd.DataFrame, column: str) -> str:
    return ", ".join(f"{column} {value:g} on {place}" for place, value in zip(rows["place"], rows[column], strict=True))


FEED, EIGHT = "|".join(FEED_FORWARD), {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}


def rank_8_everywhere():
    return EIGHT


def rank_4_everywhere():
    return {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


def attention_alone():
    return {**EIGHT, "target_modules": list(ATTENTION)}


def scale_forgotten():
    return {**EIGHT, "rank_pattern": {FEED: 2}}


def scale_for_alpha():
    return {**EIGHT, "rank_pattern": {FEED: 2}, "alpha_pattern": {FEED: 2}}


def start_of_a_name():
    return {**EIGHT, "rank_pattern": {"mlp": 2}, "alpha_pattern": {"mlp": 4}}


def alpha_of_a_start():
    return {**EIGHT, "rank_pattern": {FEED: 2}, "alpha_pattern": {"mlp": 4}}


def rank_3():
    return {**EIGHT, "rank_pattern": {FEED: 3}, "alpha_pattern": {FEED: 6}}


def exceptions_on_the_attention():
    names = "q_proj|k_proj|v_proj|o_proj"
    everywhere = {"r": 2, "lora_alpha": 4, "target_modules": [*ATTENTION, *FEED_FORWARD]}
    return {**everywhere, "rank_pattern": {names: 8}, "alpha_pattern": {names: 16}}


def name_by_name():
    ranks = {"gate_proj": 1, "up_proj": 1, "down_proj": 2}
    return {**EIGHT, "rank_pattern": ranks, "alpha_pattern": {name: 2 * rank for name, rank in ranks.items()}}


EXERCISE = Exercise(
    answer=fitting_places,
    kind="make it fit",
    difficulty=2,
    minutes=12,
    cases=cases,
    outcome=outcome,
    given=(places,),
    mistakes={
        rank_8_everywhere: "It has {yours} parameters, the limit is 90,000. Rank 8 on the attention takes 57,344. "
        "How much is left for the other three places?",
        rank_4_everywhere: "It fits, but with {yours}. Take the parameters from the feed-forward part instead.",
        attention_alone: "It fits, but an adapter is missing: {yours}.",
        scale_forgotten: "It fits, but the scale is no longer 2: {yours}. `lora_alpha` stayed, and is divided by a "
        "smaller rank. There is a field for that, with the same names.",
        scale_for_alpha: "It fits, but with {yours}: `alpha_pattern` takes a lora_alpha, which is still divided by the "
        "rank; not the scale itself.",
        start_of_a_name: "The {part} {yours}. A name has to match a layer's from a "
        "dot up to the end: `mlp` and `gate` do not, and names with commas between them are one. "
        "`a_proj|b_proj` are two. PEFT warns of it, and goes on with rank 8.",
        alpha_of_a_start: "It fits, but the {part} {yours}. A name has to match a layer's from a dot up to the end, "
        "as in the rank_pattern: the ranks are right, and the scale is not 2.",
        rank_3: "It has {yours} parameters, the limit is 90,000. One of the three places has to do with a rank less.",
    },
    hints=(
        "The feed-forward part costs most. With `places`, find what rank 8 on the attention leaves for it.",
        "`rank_pattern` and `alpha_pattern` take the same names: `a_proj|b_proj` matches both places. The scale is "
        "lora_alpha / r, place by place, so a quarter of the rank needs a quarter of the `lora_alpha`.",
    ),
    alternatives=(exceptions_on_the_attention, name_by_name),
)
