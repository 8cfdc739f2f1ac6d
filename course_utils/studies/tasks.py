"""Are the narrow tasks hard, and can they be learned? Each one before training and after it."""

from typing import Any

from course_utils import chat, datafiles, evaluation, loading, training
from course_utils.studies.records import Study, grid
from course_utils.training import LORA, Recipe

TASKS = ["dates", "units", "records"]
SCORING = {"max_new_tokens": 48, "split": "validation"}


def run(recipe: Recipe) -> dict[str, Any]:
    """How many answers to the validation rows are exactly right."""
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    rows = {split: datafiles.load_task(recipe.data, split) for split in ("train", SCORING["split"])}
    model = training.prepare_model(recipe)
    if recipe.steps:
        training.fit(model, chat.encode_answers(rows["train"], tokenizer, recipe.template), recipe)
    held_out = rows[SCORING["split"]]
    questions = [chat.question(row["prompt"]) for row in held_out]
    answers = evaluation.generate(
        model, tokenizer, questions, template=recipe.template, max_new_tokens=SCORING["max_new_tokens"]
    )
    share = evaluation.accuracy(answers, [row["answer"] for row in held_out])
    return {"rows": len(held_out), "exact": round(share * len(held_out))}


STUDY = Study(
    "tasks",
    grid(Recipe(adapter=LORA, lr=1e-3, steps=60), data=TASKS, steps=[0, 60]),
    run,
    SCORING,
    tuple(f"tasks/{name}.jsonl" for name in TASKS),
)
