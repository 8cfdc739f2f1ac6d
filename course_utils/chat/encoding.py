"""How does a thread become tokens, and which of them are learned? Templates, loss masks and prompts."""

import re
import sys
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils.chat.threads import ALIASES, Turn, normalized
from course_utils.core.rows import NothingLeft
from course_utils.datafiles import Message

Example = dict[str, list[int]]  # {"input_ids": ..., "labels": ...}, both of the same length in tokens

IGNORE = -100  # label of a token that the loss skips (torch.nn.functional.cross_entropy)


@dataclass(frozen=True)
class Template:
    """How a turn is written: head, space, text, end, gap. Of an assistant's turn, space, text and end are learned."""

    heads: dict[str, str]  # one for each role that the template has a place for
    space: str = ""
    end: str | None = None  # of every turn; None: the tokenizer's end-of-sequence token, after answers only
    gap: str = ""


TEMPLATES = {
    # Guanaco's text (QLoRA repository, openassistant-guanaco data) has no newline between turns. One thing is added:
    # the end-of-sequence token after every answer, where the model has to stop.
    "guanaco": Template({"user": "### Human:", "assistant": "### Assistant:"}, space=" "),
    "chatml": Template(
        {role: f"<|im_start|>{role}\n" for role in ("system", "user", "assistant")}, end="<|im_end|>", gap="\n"
    ),
}


def top_thread(tree: Message, worst: bool = False) -> list[Turn]:
    """One conversation out of a tree: at every turn the best-ranked reply, as Guanaco was made (QLoRA, section 5.1).

    With `worst`, the worst of the ranked replies to the prompter instead; where none is ranked, the first. The thread
    ends with an answer, so a last unanswered question is left out, and an unanswered tree gives an empty thread.
    """
    thread, message = [tree], tree
    while message.replies:
        ranked = [reply for reply in message.replies if reply.rank is not None]
        take_last = worst and ranked and message.role == "prompter"
        message = ranked[-1] if take_last else message.replies[0]
        thread.append(message)
    if thread[-1].role == "prompter":
        thread.pop()
    return [{"role": ALIASES.get(message.role, message.role), "content": message.text} for message in thread]


def render(
    thread: list[Turn], tokenizer: PreTrainedTokenizerBase, template: str = "guanaco", *, ask: bool = False
) -> str:
    """The text of a thread; with `ask`, ready for the model's next answer.

    A string cannot say whether `<|im_end|>` ends a turn or was typed by somebody; `encode` and `encode_prompt` can.
    """
    return "".join("".join(parts) for parts, _ in _pieces(thread, tokenizer, template, ask))


def encode(
    thread: list[Turn],
    tokenizer: PreTrainedTokenizerBase,
    template: str = "guanaco",
    *,
    train_on: str = "answers",
    max_length: int | None = None,
) -> Example:
    """Token ids and labels of a thread, after the beginning-of-sequence token if the tokenizer puts one before text.

    Args:
        thread: turns, user first.
        template: "guanaco" or "chatml".
        train_on: "answers" gives -100 to every token that is not an answer or its end token; "all" labels every token
            of the text, as Guanaco did (QLoRA, section 5.1).
        max_length: in tokens; what lies beyond is cut off.

    Raises:
        ValueError: unknown template or `train_on`; a turn without a place in the template or without text; a tokenizer
            without the end token; or no token is left to train on.
    """
    if train_on not in ("answers", "all"):
        raise ValueError(f"Unknown train_on {train_on!r}; choose 'answers' or 'all'.")
    ids, labels = [], []
    for row, answer in _tokenize(_pieces(thread, tokenizer, template), tokenizer):
        ids += row
        labels += row if answer or train_on == "all" else [IGNORE] * len(row)
    start = _start(ids, tokenizer)
    ids, labels = (start + ids)[:max_length], ([IGNORE] * len(start) + labels)[:max_length]
    if all(label == IGNORE for label in labels[1:]):
        where = "" if max_length is None else f" in the first {max_length} tokens"
        start = normalized(thread)[0]["content"][:60]
        raise ValueError(f"No token is left to train on: no answer{where}. Leave out the thread that starts {start!r}.")
    return {"input_ids": ids, "labels": labels}


def encode_prompt(thread: list[Turn], tokenizer: PreTrainedTokenizerBase, template: str = "guanaco") -> list[int]:
    """Token ids that ask for the next answer: exactly those that stand before it in `encode`."""
    ids = [token for row, _ in _tokenize(_pieces(thread, tokenizer, template, True), tokenizer) for token in row]
    return _start(ids, tokenizer) + ids


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> Example:
    """Text without turns, every token labeled; what lies beyond `max_length` tokens is cut off."""
    ids = [token for row, _ in _tokenize([(cut_at_special(text, tokenizer), True)], tokenizer) for token in row]
    ids = (_start(ids, tokenizer) + ids)[:max_length]
    return {"input_ids": ids, "labels": ids}


def encode_all(
    threads: Iterable[list[Turn]],
    tokenizer: PreTrainedTokenizerBase,
    template: str = "guanaco",
    *,
    train_on: str = "answers",
    max_length: int | None = None,
) -> list[Example]:
    """`encode` each thread; those without an answer, and those too long for `max_length`, are left out whole.

    So no answer loses its end. How many were left out, and why, is said on stderr.

    Raises:
        ValueError: as `encode`, naming the thread.
        NothingLeft: no thread is left.
    """
    roles, encoded, unanswered, count = _template(template).heads, [], 0, 0
    for count, thread in enumerate(threads, 1):
        turns = [] if isinstance(thread, Sized) and not len(thread) else normalized(thread, roles, count - 1)
        if any(turn["role"] == "assistant" for turn in turns):
            encoded.append(encode(turns, tokenizer, template, train_on=train_on))
        else:
            unanswered += 1
    kept = [example for example in encoded if max_length is None or len(example["input_ids"]) <= max_length]
    reasons = {"without an answer": unanswered, f"longer than {max_length} tokens": len(encoded) - len(kept)}
    left_out = ", ".join(f"{number} {reason}" for reason, number in reasons.items() if number)
    if not kept:
        why = left_out or "there are none (a generator, such as map(...), can be gone through only once)"
        raise NothingLeft(f"No thread can be used: {why}. Pass threads with answers, or raise max_length.")
    if left_out:
        print(f"{count - len(kept)} of {count} threads are left out: {left_out}.", file=sys.stderr)
    return kept


def encode_answers(
    rows: Iterable[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase, template: str = "guanaco"
) -> list[Example]:
    """`encode` the rows of a task: each `prompt` as a question, of which the `answer` is learned.

    Raises:
        ValueError: as `encode`.
    """
    return [encode(question(row["prompt"], row["answer"]), tokenizer, template) for row in rows]


def end_id(tokenizer: PreTrainedTokenizerBase, template: str = "guanaco") -> int:
    """Id of the token that ends an answer; a ValueError where the tokenizer has none."""
    end = _template(template).end or tokenizer.eos_token
    if end is None:
        raise ValueError(
            "The tokenizer has no end-of-sequence token, so a model could not learn where an answer ends. Set "
            "tokenizer.eos_token to a special token of its vocabulary."
        )
    ids = _plain_ids(end, tokenizer)
    if tokenizer.convert_ids_to_tokens(ids) != [end]:
        raise ValueError(
            f"The template {template!r} ends answers with {end}, which is no token of this tokenizer. Choose another, "
            f"or call tokenizer.add_tokens([{end!r}], special_tokens=True), then model.resize_token_embeddings."
        )
    return ids[0]


def question(prompt: str, answer: str | None = None) -> list[Turn]:
    """A thread of one question, with its answer if there is one."""
    thread = [{"role": "user", "content": prompt}]
    return thread if answer is None else [*thread, {"role": "assistant", "content": answer}]


def _template(name: str) -> Template:
    if name not in TEMPLATES:
        raise ValueError(f"Unknown template {name!r}; choose from {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]


Piece = tuple[list[str], bool]  # text, cut where it spells a special token; and whether it is an answer


def _pieces(thread: list[Turn], tokenizer: PreTrainedTokenizerBase, template: str, ask: bool = False) -> list[Piece]:
    """The text of a thread, by turns not learned and learned."""
    form, pieces = _template(template), []
    end_id(tokenizer, template)

    def add(answer: bool, first: str, *rest: str) -> None:
        if not pieces or pieces[-1][1] != answer:
            pieces.append(([""], answer))
        pieces[-1][0][-1] += first
        pieces[-1][0].extend(rest)

    for turn in normalized(thread, form.heads):
        answer = turn["role"] == "assistant"
        add(False, form.heads[turn["role"]])
        add(answer, form.space)
        add(answer, *cut_at_special(turn["content"], tokenizer))
        add(answer, form.end or (tokenizer.eos_token if answer else ""))
        add(False, form.gap)
    if ask:
        add(False, form.heads["assistant"])
    return pieces


def cut_at_special(content: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """`content` cut inside each special token that it spells; tokenized one by one, the parts cannot make the token."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = special | set(tokenizer.all_special_tokens) | {"<|im_start|>", "<|im_end|>"}
    ends = [found.start() + 1 for found in re.finditer("|".join(map(re.escape, names)), content)]
    return [content[start:end] for start, end in zip([0, *ends], [*ends, None], strict=True)]


def _tokenize(pieces: list[Piece], tokenizer: PreTrainedTokenizerBase) -> Iterable[tuple[list[int], bool]]:
    """Ids of each piece: as in the whole text, but that no token reaches from one piece into the next.

    A prompt ends where an answer begins, so a token across that border could not be asked for.
    """
    before = ""
    for (first, *rest), answer in pieces:
        ids = _ids_behind(before, first, tokenizer)
        yield ids + [token for part in rest for token in _ids_behind("\n", part, tokenizer)], answer
        before = [first, *rest][-1]


def _ids_behind(before: str, text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of `text` as it stands behind `before`: at the start of a text, some tokenizers put a space first."""
    left, both = _plain_ids(before, tokenizer), _plain_ids(before + text, tokenizer)
    return both[len(left) :] if both[: len(left)] == left else _plain_ids(text, tokenizer)


def _plain_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _start(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The beginning-of-sequence token, if the tokenizer puts one before text and `ids` do not begin with it."""
    bos = [tokenizer.bos_token_id]
    added = tokenizer("a")["input_ids"][:1] == bos and _plain_ids("a", tokenizer)[:1] != bos
    return bos if added and ids[:1] != bos else []
