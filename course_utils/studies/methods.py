"""Which method of PEFT learns best, what does it forget, and what does it cost? Eight methods, at three rates each."""

import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from peft import PeftModel

from course_utils import chat, datafiles, evaluation, loading, memory, training
from course_utils.loading.adapters import WEIGHTS
from course_utils.studies.probe import ANSWERS, Probe
from course_utils.studies.records import Study, grid
from course_utils.training import LORA, Recipe

SEEDS = [0, 1, 2]
DEFAULTS = {"task_type": "CAUSAL_LM"}  # what a method leaves unsaid is PEFT's default for a model of Llama's shape
VIRTUAL = {**DEFAULTS, "num_virtual_tokens": 20}
# Each method with its adapter and its rates. They were chosen before the first run: a decade in steps of about three,
# in or near which a published rate lies. PEFT's own comparison (method_comparison/MetaMathQA in its repository) has
# rates for 5,000 steps, so they are at the lower end here, or below: there are 80.
METHODS: dict[str, tuple[dict[str, Any], list[float]]] = {
    # QLoRA's paper has 2e-4 (appendix B.2)
    "LoRA": (LORA, [1e-4, 3e-4, 1e-3]),
    # its paper compares DoRA at the rates of LoRA
    "DoRA": ({**LORA, "use_dora": True}, [1e-4, 3e-4, 1e-3]),
    # 3e-3 in its paper (T-Few), 1e-3 and 5e-3 in PEFT's comparison
    "IA3": ({**DEFAULTS, "peft_type": "IA3"}, [3e-3, 1e-2, 3e-2]),
    # in its paper ten times the rate of LoRA, 4e-3 for instructions
    "VeRA": ({**DEFAULTS, "peft_type": "VERA"}, [3e-3, 1e-2, 3e-2]),
    # 1e-4 in PEFT's comparison, too little for 80 steps: the weights of the norms are around 0.3
    "LN tuning": ({**DEFAULTS, "peft_type": "LN_TUNING"}, [1e-3, 3e-3, 1e-2]),
    # 3e-2 in PEFT's guide; in its comparison 1e-3, from real tokens, the better start; in its paper 0.3 (Adafactor)
    "prompt tuning": (
        {**VIRTUAL, "peft_type": "PROMPT_TUNING", "prompt_tuning_init": "SAMPLE_VOCAB"},
        [1e-2, 3e-2, 1e-1],
    ),
    # 1e-3 and 5e-3 in PEFT's comparison
    "P-tuning": ({**VIRTUAL, "peft_type": "P_TUNING", "encoder_hidden_size": 128}, [1e-3, 3e-3, 1e-2]),
    # 5e-3 in PEFT's comparison, from zero; from its random start the loss of this model would begin at 7
    "prefix tuning": ({**VIRTUAL, "peft_type": "PREFIX_TUNING", "init_weights": "zero"}, [3e-3, 1e-2, 3e-2]),
}
ADDITION = Recipe(adapter=LORA, data="addition", lr=1e-3, steps=80, schedule="linear", warmup_steps=4)
SCORING = {"max_new_tokens": 8, "max_length": 256}


def run(recipe: Recipe) -> dict[str, Any]:
    """`score`, with the name of the method."""
    named = (name for name, (adapter, _) in METHODS.items() if adapter == recipe.adapter)
    return {"variant": next(named, "none"), **score(recipe)}


def score(recipe: Recipe) -> dict[str, Any]:
    """What a run learned and forgot, beside the base model (`Probe.scores`); of a training also what it cost.

    Units: `tokens` without padding and virtual tokens; `file_bytes` of the weights that PEFT saves.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    rows = {split: datafiles.load_task(recipe.data, split) for split in datafiles.SPLITS}
    before = _of_the_base(replace(recipe, adapter=None, steps=0, lr=ADDITION.lr, seed=ADDITION.seed))
    model = training.prepare_model(recipe)  # behind that, so that two models are never in memory at once
    probe, cost = Probe(model, tokenizer, recipe, rows, SCORING, before=before), {}
    if recipe.steps:
        history = training.fit(model, chat.encode_answers(rows["train"], tokenizer, recipe.template), recipe)
        cost = {
            "losses": [round(loss, 4) for loss in history.losses],
            "tokens": history.tokens,
            "seconds_per_step": round(history.seconds / recipe.steps, 4),
            "trained": memory.count_parameters(model, trainable=True),
            "file_bytes": file_bytes(model),
        }
    return {**cost, **probe.scores()}


@lru_cache(maxsize=1)
def _of_the_base(base: Recipe) -> dict[str, evaluation.Predictions]:
    """What the base model predicts, once for all runs of a process that differ in their training alone."""
    rows = {split: datafiles.load_task(base.data, split) for split in ANSWERS}
    tokenizer = loading.load_tokenizer(base.model, revision=base.revision)
    return Probe(training.prepare_model(base), tokenizer, base, rows, SCORING).before


def file_bytes(model: PeftModel) -> int:
    """Bytes of the file that PEFT saves an adapter's weights to."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_embedding_layers=False)  # "auto" would ask the hub
        return (Path(folder) / WEIGHTS).stat().st_size


def _recipes() -> list[Recipe]:
    """By seed, so that a study that is cut short has whole comparisons."""
    runs = [
        recipe
        for adapter, rates in METHODS.values()
        for recipe in grid(replace(ADDITION, adapter=adapter), lr=rates, seed=SEEDS)
    ]
    return [replace(ADDITION, adapter=None, steps=0), *sorted(runs, key=lambda recipe: recipe.seed)]


STUDY = Study("methods", _recipes(), run, SCORING, ("tasks/addition.jsonl", "passages.jsonl"), minutes=1.3)
