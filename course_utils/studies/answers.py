"""Whose answers are better: those of the untrained model, of LoRA, QLoRA or full fine-tuning, or of bad examples?

The rules, written down before the first run:

- Five arms answer the 80 evaluation prompts, greedily, in at most 64 tokens: "base", the untrained model, asked in its
  own template with its system turn; "LoRA", "QLoRA" and "full", by the recipes of the study `qlora`, each at the rate
  that the validation conversations choose there; and "worst", LoRA's recipe on the worst-ranked replies. (Those threads
  have one question each, and 57 answer tokens where the best have 90: equal steps are not equal tokens.)
- The judge is `tournament.by_reference`: of two answers to a prompt, the one nearer to its reference answer by chrF
  wins, and up to one point apart they are equal. It knows nothing of truth. No order can matter to it, so each pair of
  answers is judged once.
- One arm against another: its points on each prompt (1 for a win, a half for a tie), their mean, and its 95 % interval
  over the prompts (`intervals.mean_and_interval`). All of it above one half: better; below: worse; else not decided.
- Ratings: Bradley and Terry's, ties as halves, with intervals from drawing prompts (all matches on a prompt together);
  and without the ties. A rating that moves by more than ten points without them depends on how ties are treated.
- Length: on each prompt, the share of matches that the longer answer won (in characters; of the matches with a winner
  and with answers of unequal length); its mean over the prompts with its interval. Above one half: longer answers win;
  below: shorter ones do. Judged once more with both answers cut to the length of the shorter, what is left above one
  half is not length alone.
- Loss: of the pairs of arms that are decided, those whose better arm has the lower loss on the test conversations, each
  in its own template. With three such pairs or more: all of them, who predicts better answers better; none of them,
  the opposite; some of them, in part. Else nothing is decided.

One seed an arm. So the intervals cover the prompts alone: not the seed, another judge, other references, or what an
answer would be if it were not cut.
"""

from dataclasses import replace
from typing import Any

import pandas as pd
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat, datafiles, evaluation, loading, training
from course_utils.chat import Example
from course_utils.studies import qlora, records
from course_utils.studies.records import Study
from course_utils.training import Recipe

RATES = {"LoRA": 1e-3, "QLoRA": 1e-3, "full": 1e-4}  # a test holds them against the study that chooses them
SCORING = {
    "max_new_tokens": 64,
    "system": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",  # what the model's template says
}
ARMS = {
    "base": replace(qlora.LORA, adapter=None, steps=0, template="chatml"),
    "LoRA": replace(qlora.LORA, lr=RATES["LoRA"]),
    "QLoRA": replace(qlora.QLORA, lr=RATES["QLoRA"]),
    "full": replace(qlora.FULL, lr=RATES["full"]),
    "worst": replace(qlora.LORA, lr=RATES["LoRA"], subset="worst"),
}


def run(recipe: Recipe) -> dict[str, Any]:
    """Train, and answer. Scores: `answers`, a text for each prompt, in their order; `stopped`, whether the model ended
    it itself; `test_nll`, on the test conversations, in nats per answer token; of a training `losses` and `tokens`.
    """
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    model, learned = training.prepare_model(recipe), {}
    if recipe.steps:
        history = training.fit(model, examples(tokenizer, recipe), recipe)
        learned = {"losses": [round(loss, 4) for loss in history.losses], "tokens": history.tokens}
    begun = [{"role": "system", "content": SCORING["system"]}] if recipe.template == "chatml" else []
    test = [[*begun, *chat.top_thread(tree)] for tree in datafiles.load_conversations(split="test")]
    asked = [[*begun, *chat.question(prompt["text"])] for prompt in datafiles.load_prompts()]
    how = {"template": recipe.template, "max_new_tokens": SCORING["max_new_tokens"]}
    answers = evaluation.generate(model, tokenizer, asked, **how)
    loss = evaluation.nll(model, [chat.encode(thread, tokenizer, recipe.template) for thread in test])
    return learned | {
        "answers": [answer.text for answer in answers],
        "stopped": [answer.stopped for answer in answers],
        "test_nll": round(loss.mean, 6),
    }


def examples(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> list[Example]:
    """The training threads of the best replies, or of the worst ones, encoded."""
    trees = datafiles.load_conversations(split="train")
    threads = [chat.top_thread(tree, worst=recipe.subset == "worst") for tree in trees]
    how = {"train_on": recipe.train_on, "max_length": recipe.max_length}
    return chat.encode_all(threads, tokenizer, recipe.template, **how)


STUDY = Study("answers", list(ARMS.values()), run, SCORING, ("conversations.jsonl", "prompts.jsonl"), minutes=6)


def runs() -> pd.DataFrame:
    """One row a run, by the name of its arm, in the order of `ARMS`.

    Columns: the recipe's fields, the scores of `run`, `seconds`, `peak_bytes`.
    """
    found = records.table("answers")
    names = {(recipe.method, recipe.precision, recipe.subset): arm for arm, recipe in ARMS.items()}
    settings = zip(found["method"], found["precision"], records.subsets(found), strict=True)
    found.index = [names[one] for one in settings]
    return found.loc[list(ARMS)]
