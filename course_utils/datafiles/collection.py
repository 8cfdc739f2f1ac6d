"""What do the course's own data files hold?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from course_utils.core import files
from course_utils.core.rows import DataError, NothingLeft, Placed, check_text, fail, numbered, read_rows, short
from course_utils.datafiles.trees import SPLITS, Message, build, split_of

HUB_PREFIX = "hub:"
LISTS = {"must"}  # fields that hold a list of texts


def load_conversations(
    source: str | Path | None = None, split: str | None = None, *, keep_spam: bool = False
) -> list[Message]:
    """Conversation trees, each as its first message with ranked replies below it. Never an empty list.

    Args:
        source: a file in the OASST schema (flat or nested), as JSON lines, JSON array or Parquet, gz or not; the
            course's own by default. "hub:" followed by a data set's id reads its split "train" from the hub:
            `load_conversations("hub:OpenAssistant/oasst1")`; "@" and a branch, tag or commit may follow the id.
        split: "train", "validation" or "test" (80/10/10 by a hash of the tree's id); all trees by default.
        keep_spam: keep messages that reviewers rejected (`review_result` is false); deleted ones never are.

    Raises:
        DataError: the file is malformed, or no tree is left; names file, line and field.
        ValueError: unknown split.
        FileNotFoundError, IsADirectoryError: no such file, or a folder.
        OSError: the hub does not give the data set; says why.
    """
    if split not in (None, *SPLITS):
        raise ValueError(f"Unknown split {split!r}; choose train, validation or test.")
    if source == HUB_PREFIX:
        raise ValueError(f"{source!r} names no data set; write its id behind it: 'hub:OpenAssistant/oasst1'.")
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        name, found = source, numbered(_hub_rows(source.removeprefix(HUB_PREFIX)), source)
    else:
        path = files.data_dir() / "conversations.jsonl" if source is None else Path(source)
        name, found = path.name, read_rows(path)
    found = list(found)
    if not found:
        raise DataError(f"{name} has no rows: it is empty.")
    trees = build(found, keep_spam=keep_spam)
    if not trees:
        raise DataError(
            f"{name} has no tree to use: the first message of each is marked as deleted, or as spam (review_result is "
            "false; keep_spam=True keeps that)."
        )
    chosen = [tree for tree in trees if split in (None, split_of(tree.message_id))]
    if not chosen:
        raise NothingLeft(
            f"{name}: the split {split!r} is empty. A hash of its id puts each tree into a split, and a file of few "
            f"trees (here {len(trees)}) may miss one; leave out `split` and divide the list yourself."
        )
    return chosen


def _hub_rows(dataset_id: str) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(
            "The hub is read with the package datasets, which is missing: `pip install datasets`."
        ) from error
    from course_utils.core import hub

    name, _, revision = dataset_id.partition("@")
    try:
        yield from load_dataset(name, split="train", revision=revision or None)
    except (*hub.FAILURES, ValueError) as error:
        raise OSError(
            f"Cannot load the data set {dataset_id!r} from the hub: {hub.reason(error)}. You can also leave out "
            f"`source` to use the course's own conversations.{hub.closed()}"
        ) from error


def load_passages() -> list[str]:
    """General text (80-200 tokens each) on which forgetting is measured."""
    return [row["text"] for row in checked("passages.jsonl", "id", "kind", "text")]


def load_passage_kinds() -> list[str]:
    """Of which kind each of them is: "news", "encyclopedia", "narrative", "dialogue", "code" or "poetry"."""
    return [row["kind"] for row in checked("passages.jsonl", "id", "kind", "text")]


def load_prompts() -> list[dict[str, Any]]:
    """The 80 evaluation prompts: `id`, `category`, `text`, `reference` answer, and what it `must` contain."""
    return checked("prompts.jsonl", "id", "category", "text", "reference", "must")


def load_figures(name: str) -> pd.DataFrame:
    """A table of published numbers; its column `source` names paper and table.

    Raises:
        ValueError: there is no such table; names those there are.
    """
    return pd.read_csv(named_file("table", "figures", f"{name}.csv"), comment="#")


def shipped_adapter() -> Path:
    """The folder of the adapter that comes with the course: for the default model in 4 bits, trained to answer."""
    return files.data_dir() / "adapters" / "guanaco-smollm2"


def named_file(kind: str, folder: str, file: str) -> Path:
    """A file that the caller named; if it is not there, the error lists those that are."""
    path = files.data_dir() / folder / file
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob(f"*{path.suffix}"))
        raise ValueError(f"Unknown {kind} {path.stem!r}; choose from {', '.join(there)}.")
    return path


def checked(file: str, *fields: str) -> list[dict[str, Any]]:
    """The rows of a data file, each with text in all of `fields`, or, for those in `LISTS`, with a list of texts."""
    return [row for _, row in placed(file, *fields)]


def placed(file: str, *fields: str) -> Iterator[Placed]:
    """The rows that `checked` returns, each with its place."""
    for place, row in read_rows(files.data_dir() / file):
        if not isinstance(row, dict):
            fail(place, "(whole row)", f"expected a JSON object, found {short(row)}")
        for name in fields:
            value = row.get(name)
            for text in value if name in LISTS and isinstance(value, list) and value else [value]:
                check_text(place, name, text)
        yield place, row
