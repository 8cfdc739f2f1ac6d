"""Which traps lie in this data, this tokenizer, these settings? All of them train without an error."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import TrainingArguments, get_scheduler
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import batches, chat
from course_utils.batches import Batch
from course_utils.chat import IGNORE, TEMPLATES, Template
from course_utils.training.recipe import Recipe

WINDOW = 32  # tokens, more than any template writes between two messages
WAYS_OUT = {  # the names of the traps: what each does, and the way out
    "nothing_to_learn": "no token has a label, so the loss is 0 or nan. Leave such rows out (chat.encode_all does), or "
    "mask less: the template that marks the answers has to be the one that wrote the text.",
    "double_bos": "two beginning-of-sequence tokens, one by the template and one by the tokenizer, which no base model "
    "has seen. Tokenize with add_special_tokens=False, or encode with chat.encode.",
    "template_mismatch": "no answer begins as this template asks for it, so at inference the model is asked otherwise "
    "than it was taught. Name the template that wrote the text, here and where you generate.",
    "special_token_in_text": "a message spells a special token. Tokenized as one it ends turns, or begins them, where "
    "nobody did. Encode with chat.encode, which takes it apart, or take it out.",
    "end_cut_off": "the last answer has no end token, so a model learns to go on. Leave out what is longer than "
    "max_length instead of cutting it (chat.encode_all does), or raise max_length.",
    "end_masked": "the end of an answer has no label, though the answer has one, so the model never learns to stop. "
    "Where pad and end are one token, decide padding by length (batches.collate), or give the tokenizer another pad.",
    "warmup_never_warms": "the rate does not rise from 0 to its full value as asked for. A schedule 'constant' ignores "
    "warm-up, 'constant_with_warmup' has one; and it has to be shorter than the run.",
    "padding_side": "prompts are padded on the right, so answers begin behind padding. Set "
    "tokenizer.padding_side = 'left' to generate (batches.collate_prompts pads so).",
    "adapter_not_saved": "the folder does not hold the weights that were trained. Save behind the last step, with "
    "model.save_pretrained(folder), or trainer.save_model(folder) where there are several processes.",
    "wrong_base": "merged, the model predicts something else. An adapter belongs to the weights that it was trained "
    "on: of a 4-bit base, load that base, call dequantize(), put the adapter on it, and merge there.",
}


@dataclass(frozen=True)
class Finding:
    """A trap, by its name in `WAYS_OUT`, and where it was found."""

    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.name}, {self.where}: {WAYS_OUT[self.name]}"


def check(
    dataset: Sequence,
    tokenizer: PreTrainedTokenizerBase,
    template: str = "guanaco",
    *,
    collator: Callable[[list], Mapping] | None = None,
    args: Recipe | TrainingArguments | None = None,
    prompts: Batch | None = None,
) -> list[Finding]:
    """The traps that are found, in the order of `WAYS_OUT`; an empty list if there is none. Nothing is changed.

    The last two of `WAYS_OUT` lie behind training: `check_shipped` looks for them.

    What is looked at is what the model would see, not settings that may do no harm: `pad_token == eos_token` is found
    only where it takes away a label.

    Args:
        dataset: threads, or rows that `chat.as_thread` knows, which are encoded as `chat.encode` does; or rows with
            `input_ids` and, if no collator makes them, `labels`.
        template: with which the model will be asked.
        collator: what makes batches of the rows in training; `batches.collate` by default.
        args: a recipe, or the arguments of a trainer, for the schedule of the rate.
        prompts: a padded batch as `model.generate` would get it, with its `attention_mask`.

    Raises:
        ValueError: the dataset is empty, a row has no labels, or as `chat.encode`, naming the row.
    """
    batches.check_examples(dataset)
    chat.end_id(tokenizer, template)
    found: dict[str, list[int]] = {name: [] for name in WAYS_OUT}
    for place, row in enumerate(dataset):
        for name in _in_row(row, place, tokenizer, template, collator or batches.collate):
            found[name].append(place)
    total = len(dataset)
    findings = {name: f"{len(rows)} of {total} rows, the first is {rows[0]}" for name, rows in found.items() if rows}
    if args is not None and (problem := _warmup(args, total)):
        findings["warmup_never_warms"] = problem
    if prompts is not None and (padded := (prompts["attention_mask"][:, -1] == 0).sum().item()):
        findings["padding_side"] = f"{padded} of {len(prompts['attention_mask'])} prompts"
    return [Finding(name, findings[name]) for name in WAYS_OUT if name in findings]


def _in_row(
    row: object, place: int, tokenizer: PreTrainedTokenizerBase, template: str, collator: Callable[[list], Mapping]
) -> Iterator[str]:
    """The names of the traps in one row."""
    form, end = TEMPLATES[template], chat.end_id(tokenizer, template)
    if not (isinstance(row, Mapping) and "input_ids" in row):
        try:
            turns = chat.as_thread(row)
        except ValueError as error:
            raise ValueError(f"Row {place}: {error}") from None
        thread = chat.normalized(turns, form.heads, place)
        if any(len(chat.cut_at_special(turn["content"], tokenizer)) > 1 for turn in thread):
            yield "special_token_in_text"
        if all(turn["role"] != "assistant" for turn in thread):
            yield "nothing_to_learn"
            return
        row = chat.encode(thread, tokenizer, template)
    if collator is batches.collate and "labels" not in row:
        raise ValueError(f"Row {place} has input_ids and no labels. Add them, or name the collator that makes them.")
    batch = collator([dict(row)])
    real = batch["attention_mask"][0].bool() if "attention_mask" in batch else slice(None)
    ids, labels = (batch[name][0][real].tolist() for name in ("input_ids", "labels"))
    if all(label == IGNORE for label in labels[1:]):
        yield "nothing_to_learn"
    elif any(ids[i] == end and labels[i] == IGNORE != labels[i - 1] for i in range(1, len(ids))):
        yield "end_masked"
    if tokenizer.bos_token_id is not None and ids[:2] == 2 * [tokenizer.bos_token_id]:
        yield "double_bos"
    if form.heads["assistant"] not in _text(ids, tokenizer):
        yield "template_mismatch"
        return
    if _misplaced(ids, tokenizer, form, end):
        yield "special_token_in_text"
    last = max((i for i, token in enumerate(ids) if token == end), default=-1)
    if form.heads["assistant"] in _text(ids[last + 1 :], tokenizer):
        yield "end_cut_off"


def _text(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def _misplaced(ids: list[int], tokenizer: PreTrainedTokenizerBase, form: Template, end: int) -> bool:
    """Whether a special token stands where the template puts none: it begins a text, a head, or ends a turn."""
    special = {token for token, each in tokenizer.added_tokens_decoder.items() if each.special}
    special |= {end, *tokenizer.all_special_ids}
    for i, token in enumerate(ids):
        if token not in special or (token == tokenizer.bos_token_id and ids[:i] == i * [token]):
            continue
        here, behind = (_text(ids[start : start + WINDOW], tokenizer) for start in (i, i + 1))
        next_turns = [form.gap + head for head in form.heads.values()]
        ends_turn = token == end and (not behind.strip() or _begins(behind, next_turns))
        if not ends_turn and not _begins(here, form.heads.values()):
            return True
    return False


def _begins(text: str, wanted: Iterable[str]) -> bool:
    """Whether a text begins with one of these, as far as it goes."""
    return any(text.startswith(each[: len(text)]) for each in wanted)


def _warmup(args: Recipe | TrainingArguments, rows: int) -> str | None:
    """What is wrong with the warm-up, by the rates that the schedule really gives."""
    if isinstance(args, Recipe):
        schedule, total, asked, options = args.schedule, args.steps, args.warmup_steps, None
    else:
        examples = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        passes = math.ceil(args.num_train_epochs * math.ceil(rows / examples))
        total = args.max_steps if args.max_steps > 0 else passes
        schedule, asked, options = args.lr_scheduler_type, args.get_warmup_steps(total), args.lr_scheduler_kwargs
    if not asked:
        return None
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    first = get_scheduler(schedule, optimizer, asked, total, options).get_last_lr()[0]
    if first == 1.0:
        return f"{asked} steps of warm-up, and the first step has the full rate"
    return f"{asked} steps of warm-up in a run of {total}" if asked >= total else None
