"""Does the ranking of the replies matter? The same questions, learned with their best and with their worst replies."""

from typing import Any

from course_utils import chat, datafiles, evaluation, loading, training
from course_utils.studies.dates import SEEDS, with_lora
from course_utils.studies.records import Settings, Study


def run(settings: Settings) -> dict[str, Any]:
    """LoRA on best-ranked or on worst-ranked replies to the same questions; measured on held-out best replies."""
    tokenizer = loading.load_tokenizer()
    trees = datafiles.load_conversations(split="train")
    pairs = [[chat.encode(chat.top_thread(t, worst=w)[:2], tokenizer) for w in (False, True)] for t in trees]
    column = ["best", "worst"].index(settings["replies"])
    examples = [pair[column] for pair in pairs if max(len(example["input_ids"]) for example in pair) <= 96]
    test = [chat.top_thread(tree)[:2] for tree in datafiles.load_conversations(split="test")]
    model = with_lora(loading.load_model(precision="fp32"), settings["seed"], r=16, lora_alpha=32)
    history = training.fit(model, examples, steps=25, lr=1e-3, seed=settings["seed"])
    answers = evaluation.generate(model, tokenizer, [thread[:1] for thread in test], max_new_tokens=96)
    return {
        "examples": len(examples),
        "losses": [round(loss, 4) for loss in history.losses],
        "tokens": history.tokens,
        "answer_nll": evaluation.nll(model, [chat.encode(thread, tokenizer) for thread in test]).mean,
        "stop_rate": evaluation.stop_rate(answers),
    }


STUDY = Study("reply_ranks", [{**SEEDS, "replies": ["best", "worst"]}], run)
