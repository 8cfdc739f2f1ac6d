"""Does the ranking of the replies matter? The same questions, learned with their best and with their worst replies."""

from typing import Any

from course_utils import chat, datafiles, evaluation, loading, training
from course_utils.studies.records import Study, grid
from course_utils.training import LORA, Recipe

SEEDS = [0, 1, 2]
RANKS = Recipe(adapter=LORA, data="conversations", subset="best", max_length=96, lr=1e-3, steps=25)
SCORING = {"max_new_tokens": 96}


def run(recipe: Recipe) -> dict[str, Any]:
    """LoRA on best-ranked or on worst-ranked replies to the same questions; measured on held-out best replies.

    A question is taken if both its replies make a thread of at most `max_length` tokens.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    trees = datafiles.load_conversations(split="train")
    pairs = [[chat.encode(chat.top_thread(t, worst=w)[:2], tokenizer) for w in (False, True)] for t in trees]
    column = ["best", "worst"].index(recipe.subset)
    fitting = [pair for pair in pairs if max(len(example["input_ids"]) for example in pair) <= recipe.max_length]
    examples = [pair[column] for pair in fitting]
    test = [chat.top_thread(tree)[:2] for tree in datafiles.load_conversations(split="test")]
    model = training.prepare_model(recipe)
    history = training.fit(model, examples, recipe)
    questions = [thread[:1] for thread in test]
    answers = evaluation.generate(model, tokenizer, questions, max_new_tokens=SCORING["max_new_tokens"])
    return {
        "examples": len(examples),
        "losses": [round(loss, 4) for loss in history.losses],
        "tokens": history.tokens,
        "answer_nll": evaluation.nll(model, [chat.encode(thread, tokenizer) for thread in test]).mean,
        "stop_rate": evaluation.stop_rate(answers),
    }


STUDY = Study("reply_ranks", grid(RANKS, seed=SEEDS, subset=["best", "worst"]), run, SCORING, ("conversations.jsonl",))
