"""In which shape does a conversation come? Rows and files in the shapes in which they are published become threads."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from course_utils.chat.encoding import top_thread
from course_utils.chat.threads import Turn, normalized
from course_utils.core.rows import DataError, NothingLeft, read_rows
from course_utils.datafiles import SPLITS, load_conversations, split_of

SHAPES = (
    "messages (OpenAI), conversations (ShareGPT), instruction and output (Alpaca), prompt and completion, or the "
    "messages or trees of OASST"
)


def as_thread(row: Any) -> Iterable[Mapping[str, Any]]:
    """The turns in a row of a data set: a list of turns, or one of `SHAPES` but OASST's. Nothing in them is checked.

    A field `system`, and Alpaca's `history` of questions with their answers, come before them.

    Raises:
        ValueError: the row has another shape, or a history that is no list of pairs; names its fields.
    """
    if not isinstance(row, Mapping):
        return row
    thread = _turns(row)
    if row.get("system") and isinstance(thread, list):
        return [{"role": "system", "content": row["system"]}, *thread]
    return thread


def _turns(row: Mapping[str, Any]) -> Any:
    """The turns of a row, without a system prompt in a field of its own."""
    for name in ("messages", "conversations"):
        if name in row:
            return row[name]
    if {"instruction", "output"} <= set(row):
        asked, more = row["instruction"], row.get("input")
        return _history(row) + _pair(f"{asked}\n\n{more}" if more and asked is not None else asked, row["output"])
    if {"prompt", "completion"} <= set(row):
        prompt, completion = row["prompt"], row["completion"]
        both_turns = isinstance(prompt, list) and isinstance(completion, list)
        return prompt + completion if both_turns else _pair(prompt if isinstance(prompt, str) else None, completion)
    raise ValueError(
        f"no conversation in a known shape, but the fields {', '.join(map(str, row))}; known are {SHAPES}."
    )


def _history(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Alpaca's earlier questions, each with its answer."""
    try:
        return [turn for asked, answer in row.get("history") or [] for turn in _pair(asked, answer)]
    except (TypeError, ValueError):
        raise ValueError(
            "the history is no list of pairs, [question, answer]; correct it, or take the field out."
        ) from None


def _pair(asked: Any, answer: Any) -> list[dict[str, Any]]:
    """Unlike `question`, keeps what is missing, so that it is named."""
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def load_threads(path: str | Path, split: str | None = None, roles: Collection[str] | None = None) -> list[list[Turn]]:
    """The threads of a file of one's own, in one of `SHAPES`, as JSON lines, JSON array or Parquet, gz or not.

    Of trees (OASST) each gives its best-ranked thread, which is empty where nobody answered.

    Args:
        split: "train", "validation" or "test": 80/10/10 by a hash of the first message, so that a question that comes
            twice stays on one side; of trees, by a hash of their ids. All by default.
        roles: those that the template has; what cannot be encoded with them is then named by its line, blank text too.

    Raises:
        DataError: a row is no conversation, or a turn of it is broken; names file and line.
        NothingLeft: the file, or this split of it, holds no thread.
        ValueError: unknown split.
        FileNotFoundError, IsADirectoryError: no such file, or a folder.
    """
    if split not in (None, *SPLITS):
        raise ValueError(f"Unknown split {split!r}; choose train, validation or test.")
    rows = list(read_rows(Path(path)))
    fields = set(rows[0][1]) if rows and isinstance(rows[0][1], Mapping) else set()
    if {"message_id", "message_tree_id"} & fields and not {"messages", "conversations"} & fields:
        return [top_thread(tree) for tree in load_conversations(path, split)]
    threads = []
    for place, row in rows:
        try:
            thread = normalized(as_thread(row), roles)
        except ValueError as error:
            raise DataError(f"{place}: {error}") from None
        if split in (None, split_of(thread[0]["content"])):
            threads.append(thread)
    if not threads:
        held = f"all of its {len(rows)} threads lie in other parts than {split!r}, by a hash of their first messages"
        what = f"{held}. Add some, or load it without a split, and divide it yourself" if rows else "it is empty"
        raise NothingLeft(f"{Path(path).name} has no thread: {what}.")
    return threads
