"""Is there a task neither too hard nor too easy? The pilot that chose addition, with a seed no other study has."""

from dataclasses import replace
from typing import Any

from course_utils import chat, datafiles, evaluation, loading, training
from course_utils.studies.records import Study
from course_utils.training import LORA, Recipe

PILOT_SEED = 9
ADDITION = Recipe(adapter=LORA, data="addition", lr=1e-3, steps=160, seed=PILOT_SEED)
SCORING = {"max_new_tokens": 8, "split": "validation", "shots": 8}


def run(recipe: Recipe) -> dict[str, Any]:
    """How many validation answers are exactly right.

    Without training, eight training rows are shown before each question, and the other ones are asked as well.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    rows = {split: datafiles.load_task(recipe.data, split) for split in ("train", SCORING["split"])}
    model, shots, held_out = training.prepare_model(recipe), [], rows[SCORING["split"]]
    if recipe.steps:
        training.fit(model, chat.encode_answers(rows["train"], tokenizer, recipe.template), recipe)
    else:
        shown = rows["train"][: SCORING["shots"]]
        shots = [turn for row in shown for turn in chat.question(row["prompt"], row["answer"])]
        held_out = held_out + rows["train"][SCORING["shots"] :]
    asked = [[*shots, *chat.question(row["prompt"])] for row in held_out]
    answers = evaluation.generate(
        model, tokenizer, asked, template=recipe.template, max_new_tokens=SCORING["max_new_tokens"]
    )
    share = evaluation.accuracy(answers, [row["answer"] for row in held_out])
    return {"rows": len(held_out), "exact": round(share * len(held_out))}


STUDY = Study(
    "off_ceiling",
    [replace(ADDITION, adapter=None, steps=0), ADDITION, replace(ADDITION, adapter=None, lr=1e-4)],
    run,
    SCORING,
    ("tasks/addition.jsonl",),
)
