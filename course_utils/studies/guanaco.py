"""What does it matter, when a model learns to answer: which replies, which tokens, how much, how often, how packed?

The rules, written down before the first run. All differences are in nats per supervised token, taken seed by seed, with
their 95 % interval (`intervals.paired`); an interval that includes zero decides nothing.

- Replies: first questions are learned with their best, their worst, or all of their replies, and the model is tested on
  best and on worst replies to other questions. That each side does better on its own kind is so by construction, and
  no evidence. What could come out otherwise: the mean of both tests (`side_effect`), trained on best minus on worst. An
  interval below zero: the best replies teach more of what all replies share; above: the worst do.
- Tokens: loss on all tokens, or on answers alone; tested on answers, with all of the data and with a quarter of it.
  "Instruction Tuning With Loss Over Instructions" (arXiv 2405.14394) found loss on instructions to help where examples
  are few: seen here if the difference (all minus answers) lies below zero with a quarter, the opposite if above.
- Amount: 100, 50 and 25 % of the threads, in equally many steps, so that fewer threads are seen more often. A seed
  draws its own threads, and the quarter is a part of the half.
- Passes: the runs on all threads are looked at after one pass and after three.
- Packing: the same 8 conversations a step, padded, or as one row behind each other, with positions that begin again at
  each, or without. Within plus or minus the margin: equal. The same data packed into a quarter of the steps says how
  much of a published gap the number of steps alone could make.

All runs have one learning rate: they are ablations of one recipe, and rank no methods. The interval covers the seeds
(and the draw of threads), not another model, other data, or other held-out texts.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pandas as pd
from torch import nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat, datafiles, evaluation, intervals, loading, training
from course_utils.batches import batches
from course_utils.chat import IGNORE, Example, Turn
from course_utils.datafiles import Message
from course_utils.studies import conversations, records
from course_utils.studies.conversations import CONVERSATIONS
from course_utils.studies.records import Study, grid
from course_utils.training import Recipe

SEEDS = [0, 1, 2, 3]
IN_A_PACK = 8  # conversations; as many as a padded step has
PASS = 48  # steps of 8 of the 387 threads
SHARES = {"half": 2, "quarter": 4}  # what part of the threads: one in so many
SCORING = {"looks": [PASS, 3 * PASS], "max_new_tokens": 96, "max_length": 256, "passages": 6, "margin": 0.01}

THREADS = replace(CONVERSATIONS, steps=PASS, lr=1e-3)
FIRST = replace(THREADS, subset="best", batch_order="random")
PACKED = replace(FIRST, subset="packed", batch_size=1, batch_order="sequential")
ARMS = {
    "best": FIRST,
    "worst": replace(FIRST, subset="worst"),
    "all": replace(FIRST, subset="all"),
    "packed": PACKED,
    "packed, own positions": replace(PACKED, subset="packed, own positions"),
    "packed, a quarter of the steps": replace(PACKED, subset="packed, own positions", steps=PASS // 4, accumulation=4),
    "threads": replace(THREADS, steps=3 * PASS),
    "half": replace(THREADS, subset="half"),
    "quarter": replace(THREADS, subset="quarter"),
    "all tokens": replace(THREADS, train_on="all"),
    "quarter, all tokens": replace(THREADS, subset="quarter", train_on="all"),
}


def run(recipe: Recipe) -> dict[str, Any]:
    """The scores of `_Watch.look`, one entry a look: at one pass and three where a run is that long, and at its end."""
    tokenizer = loading.load_tokenizer(recipe.model, revision=recipe.revision)
    watch = _Watch(training.prepare_model(recipe), tokenizer, recipe)
    if not recipe.steps:
        watch.look()
        return watch.seen
    history = training.fit(watch.model, examples(tokenizer, recipe), recipe, on_step=watch.on_step)
    return watch.seen | {"losses": [round(loss, 4) for loss in history.losses], "tokens": history.tokens}


def examples(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> list[Example]:
    """What a run learns from, encoded; packed, one example is what one step, or one accumulated part of it, sees."""
    if recipe.subset in (None, *SHARES):
        found = conversations.encoded(tokenizer, recipe)["train"]
        places = random.Random(recipe.seed).sample(range(len(found)), len(found))
        return [found[place] for place in places[: len(found) // SHARES.get(recipe.subset, 1)]]
    packs = recipe.subset.startswith("packed")
    trees = datafiles.load_conversations(split="train")
    threads = [thread for tree in trees for thread in first_replies(tree, "best" if packs else recipe.subset)]
    found = chat.encode_all(threads, tokenizer, recipe.template, max_length=recipe.max_length)
    if not packs:
        return found
    steps = batches(found, IN_A_PACK, recipe.seed, FIRST.batch_order)
    own = recipe.subset.endswith("own positions")
    return [packed(step, own) for step in islice(steps, recipe.steps * recipe.accumulation)]


def first_replies(tree: Message, side: str) -> list[list[Turn]]:
    """The first question with its best, its worst, or each of its replies."""
    if side == "all":
        return [chat.question(tree.text, reply.text) for reply in tree.replies]
    thread = chat.top_thread(tree, worst=side == "worst")[:2]
    return [thread] if thread else []


def packed(examples: Sequence[Example], own_positions: bool) -> Example:
    """Conversations behind each other in one row; no token is asked to predict the first one of the next."""
    row: Example = {
        "input_ids": [token for one in examples for token in one["input_ids"]],
        "labels": [label for one in examples for label in [IGNORE, *one["labels"][1:]]],
    }
    if own_positions:
        row["position_ids"] = [place for one in examples for place in range(len(one["input_ids"]))]
    return row


class _Watch:
    """Looks at a model on its way."""

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
        self.model, self.tokenizer, self.recipe = model, tokenizer, recipe
        self.seen: dict[str, list[Any]] = {}
        trees = datafiles.load_conversations(split="test")
        sides = {side: [thread for tree in trees for thread in first_replies(tree, side)] for side in ("best", "worst")}
        self.best = sides["best"]
        self.measured = {
            name: [chat.encode(thread, tokenizer, recipe.template) for thread in threads]
            for name, threads in {**sides, "thread": [chat.top_thread(tree) for tree in trees]}.items()
        }

    def on_step(self, step: int, _: float) -> None:
        if step + 1 in {*SCORING["looks"], self.recipe.steps}:
            self.look()

    def look(self) -> None:
        """Add one entry to every score.

        `best_nll`, `worst_nll` and `thread_nll` (replies to first questions, and whole threads) and `general_nll`, in
        nats per token; `stop_rate`, and `chrf` against the best replies, of generated answers to first questions.
        """
        from sacrebleu import corpus_chrf  # of the sft packages, which those who read the records need not have

        found = {f"{name}_nll": evaluation.nll(self.model, rows).mean for name, rows in self.measured.items()}
        passages = datafiles.load_passages()[:: SCORING["passages"]]
        general = evaluation.general_nll(self.model, self.tokenizer, passages, SCORING["max_length"])
        answers = evaluation.generate(
            self.model,
            self.tokenizer,
            [thread[:1] for thread in self.best],
            template=self.recipe.template,
            max_new_tokens=SCORING["max_new_tokens"],
        )
        references = [thread[1]["content"] for thread in self.best]
        chrf = corpus_chrf([answer.text for answer in answers], [references]).score
        found |= {"general_nll": general.mean, "stop_rate": evaluation.stop_rate(answers), "chrf": chrf}
        for name, value in found.items():
            self.seen.setdefault(name, []).append(round(float(value), 6))


def _recipes() -> list[Recipe]:
    """By seed, so that a study that is cut short has whole comparisons."""
    runs = [recipe for arm in ARMS.values() for recipe in grid(arm, seed=SEEDS)]
    return [replace(FIRST, adapter=None, steps=0), *sorted(runs, key=lambda recipe: recipe.seed)]


STUDY = Study("guanaco", _recipes(), run, SCORING, ("conversations.jsonl", "passages.jsonl"), minutes=3.5)


def looks() -> pd.DataFrame:
    """One row for each look at a model: its `arm` ("untrained" without training), `step`, and its scores.

    Columns: the recipe's fields, `arm`, `step`, the scores of `run`, `seconds`, `peak_bytes`.
    """
    runs = records.table("guanaco")
    names = {(recipe.subset, recipe.train_on, recipe.steps): arm for arm, recipe in ARMS.items()}
    settings = zip(records.subsets(runs), runs["train_on"], runs["steps"], strict=True)
    runs["arm"] = [names.get(one, "untrained") for one in settings]
    runs["step"] = [
        [step for step in sorted({*SCORING["looks"], steps}) if step <= steps or not steps][: len(seen)]
        for steps, seen in zip(runs["steps"], runs["best_nll"], strict=True)
    ]
    scores = ["best_nll", "worst_nll", "thread_nll", "general_nll", "stop_rate", "chrf"]
    rows = runs.explode(["step", *scores]).reset_index(drop=True)
    return rows.astype({"step": int} | dict.fromkeys(scores, float))


def look(rows: pd.DataFrame, arm: str, step: int | None = None) -> pd.DataFrame:
    """The looks at an arm, one a seed, at a step; by default after one pass, or at the end of a shorter run.

    Raises:
        ValueError: there is no such look; names those there are.
    """
    own = rows[rows["arm"] == arm]
    chosen = own[own["step"] == (own["step"].min() if step is None else step)]
    if chosen.empty:
        there = sorted({f"{one} at {at}" for one, at in zip(rows["arm"], rows["step"], strict=True)})
        raise ValueError(f"No look at {arm!r}{f' at {step}' if step else ''}; there are: {', '.join(there)}.")
    return chosen


def compared(
    rows: pd.DataFrame,
    arm: str,
    other: str,
    score: str = "thread_nll",
    steps: tuple[int | None, int | None] = (None, None),
) -> pd.Series:
    """Arm minus other, seed by seed: `difference`, its `half`-width, and `words` ("lower", "higher", or neither)."""
    difference, half = intervals.paired(look(rows, arm, steps[0]), look(rows, other, steps[1]), score)
    return pd.Series({"difference": difference, "half": half, "words": words(difference, half)})


def words(difference: float, half: float) -> str:
    """What an interval says of zero."""
    if difference + half < 0:
        return "lower"
    return "higher" if difference - half > 0 else "not decided"


def equal(difference: float, half: float) -> bool:
    """Whether an interval lies within plus or minus the margin."""
    return -SCORING["margin"] < difference - half and difference + half < SCORING["margin"]


def side_effect(rows: pd.DataFrame) -> pd.Series:
    """Trained on best minus trained on worst, in the mean of both tests; as `compared`."""
    both = rows.assign(both_nll=(rows["best_nll"] + rows["worst_nll"]) / 2)
    return compared(both, "best", "worst", "both_nll")
