"""What does each number format cost in prediction? The untrained model in six of them, text by text."""

from dataclasses import replace
from typing import Any

from course_utils import chat, datafiles, evaluation, loading, training
from course_utils.studies import conversations
from course_utils.studies.conversations import CONVERSATIONS
from course_utils.studies.records import Study
from course_utils.training import Recipe

UNTRAINED = replace(CONVERSATIONS, adapter=None, steps=0)
FORMATS = {"fp32": None, "bf16": None, "int8": "fp32", "nf4": "fp32", "nf4-dq": "fp32", "fp4": "fp32"}  # computed in
SCORING = {"max_length": 256}


def run(recipe: Recipe) -> dict[str, Any]:
    """Loss of every general passage and of the answers of every held-out conversation, in the order of the files.

    So two formats are compared text by text, and a text that is hard in all of them is no noise. Lists of nats and of
    scored tokens, one entry a text, and the means in nats per token. Only the storage differs: bf16 weights are put
    back into fp32 before they are multiplied, and 4-bit weights compute in fp32. int8 is LLM.int8(), which rounds the
    activations to 8 bits as well.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    model = training.prepare_model(recipe)
    if recipe.precision == "bf16":
        model.float()
    texts = {
        "general": [chat.encode_text(text, tokenizer, SCORING["max_length"]) for text in datafiles.load_passages()],
        "heldout": conversations.encoded(tokenizer, recipe)["test"],
    }
    scores: dict[str, Any] = {}
    for name, examples in texts.items():
        each = evaluation.nll_each(model, examples)
        scores[f"{name}_nll"] = each["nats"].sum() / each["tokens"].sum()
        scores[f"{name}_nats"] = each["nats"].round(5).tolist()
        scores[f"{name}_tokens"] = each["tokens"].tolist()
    return scores


STUDY = Study(
    "precisions",
    [replace(UNTRAINED, precision=name, compute_dtype=computed) for name, computed in FORMATS.items()],
    run,
    SCORING,
    ("conversations.jsonl", "passages.jsonl"),
    minutes=0.7,
)
