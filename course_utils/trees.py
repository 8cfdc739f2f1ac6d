"""Is this file a forest of valid conversation trees? Reads the OASST message-tree schema, flat or nested.

OASST (Köpf et al. 2023, arXiv 2304.07327) publishes its conversations in two shapes, and both occur in the wild: one
*message* per line, each naming its parent, and one *tree* per line, with replies nested inside. Both are read here.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

ROLES = ("prompter", "assistant")
SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """A data file is malformed; the message names file, line and field."""


@dataclass
class Message:
    """One message and the replies to it, best-ranked first; unranked replies follow in file order.

    `rank` is 0 for the best of several replies, or None; `extra` holds every other field of the record.
    """

    message_id: str
    text: str
    role: str
    lang: str = "en"
    rank: int | None = None
    replies: list["Message"] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def walk(self) -> Iterator["Message"]:
        """This message, then everything below it, parents before children."""
        yield self
        for reply in self.replies:
            yield from reply.walk()


def split_of(tree_id: str) -> str:
    """The split that a tree belongs to: 80/10/10 by a hash of its id, so that it never changes."""
    bucket = int(hashlib.sha256(tree_id.encode()).hexdigest()[:8], 16) % 10
    return SPLITS[max(0, bucket - 7)]


def build(records: Iterable[dict[str, Any]], source: str = "records") -> list[Message]:
    """Trees from OASST records, in the order of their first message; deleted messages are left out with their replies.

    Args:
        records: dicts, one per line of `source`, each a flat message or a nested tree.
        source: name of the file, for error messages.

    Raises:
        DataError: a field is missing or of the wrong type, an id occurs twice, a parent is missing, a tree has two
            roots or a cycle, roles do not alternate, or ranks have a gap.
    """
    checker = _Checker(source)
    rows = [row for line, record in enumerate(records, 1) for row in checker.flatten(record, line)]
    by_id: dict[str, _Row] = {}
    for row in rows:
        if row.id in by_id:
            checker.fail(row, "message_id", f"{row.id!r} occurs already on line {by_id[row.id].line}")
        by_id[row.id] = row
    children = defaultdict(list)
    for row in rows:
        checker.check_parent(row, by_id)
        children[row.parent_id].append(row)
    checker.check_roots(rows)
    trees = [checker.assemble(row, children) for row in children[None]]
    checker.check_reached(rows)
    return [tree for tree in trees if tree is not None]


@dataclass
class _Row:
    """A flat message with the line it came from; `reached` once it is part of a tree."""

    line: int
    record: dict[str, Any]
    reached: bool = False

    def __post_init__(self) -> None:
        self.id = self.record["message_id"]
        self.parent_id = self.record.get("parent_id")
        self.tree_id = self.record["message_tree_id"]
        self.deleted = bool(self.record.get("deleted"))


class _Checker:
    """The rules of the schema; every violation names file, line and field."""

    KNOWN = ("message_id", "parent_id", "message_tree_id", "text", "role", "lang", "rank", "replies")

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, row: "_Row | int", name: str, problem: str) -> None:
        line = row if isinstance(row, int) else row.line
        raise DataError(f"{self.source}, line {line}, field {name!r}: {problem}")

    def flatten(self, record: object, line: int) -> Iterator[_Row]:
        """The rows of one record: itself, or, for a nested tree, all of its messages."""
        if not isinstance(record, dict):
            self.fail(line, "(whole line)", f"expected a JSON object, found {type(record).__name__}")
        if "prompt" not in record:
            yield self.row(record, line)
            return
        stack = [(record["prompt"], None)]
        while stack:
            message, parent_id = stack.pop()
            if not isinstance(message, dict):
                self.fail(line, "prompt", f"expected a message object, found {type(message).__name__}")
            message = {**message, "parent_id": parent_id, "message_tree_id": record.get("message_tree_id")}
            row = self.row(message, line)
            yield row
            replies = message.get("replies") or []
            if not isinstance(replies, list):
                self.fail(line, "replies", f"expected a list, found {type(replies).__name__}")
            stack += [(reply, row.id) for reply in reversed(replies)]

    def row(self, record: dict[str, Any], line: int) -> _Row:
        """A message whose fields have been checked one by one."""
        for name in ("message_id", "message_tree_id"):
            if not isinstance(record.get(name), str) or not record[name]:
                self.fail(line, name, f"expected a non-empty string, found {record.get(name)!r}")
        parent_id = record.get("parent_id")
        if parent_id is not None and not isinstance(parent_id, str):
            self.fail(line, "parent_id", f"expected a string or null, found {parent_id!r}")
        if record.get("role") not in ROLES:
            self.fail(line, "role", f"expected one of {ROLES}, found {record.get('role')!r}")
        if not isinstance(record.get("lang", "en"), str):
            self.fail(line, "lang", f"expected a language tag such as 'en', found {record['lang']!r}")
        text = record.get("text")
        if not isinstance(text, str) or not (text.strip() or record.get("deleted")):
            self.fail(line, "text", f"expected a non-empty string, found {text!r}")
        return _Row(line, {**record, "rank": self.rank(record.get("rank"), line)})

    def rank(self, value: object, line: int) -> int | None:
        """A rank as an integer; tables written by pandas hold 0.0 for 0 and NaN for null."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 0:
            self.fail(line, "rank", f"expected 0, 1, 2, ... or null, found {value!r}")
        return int(value)

    def check_parent(self, row: _Row, by_id: dict[str, _Row]) -> None:
        if row.parent_id is None:
            if row.record["role"] != "prompter":
                self.fail(row, "role", "the first message of a tree must be the prompter's")
            return
        parent = by_id.get(row.parent_id)
        if parent is None:
            self.fail(row, "parent_id", f"there is no message {row.parent_id!r}")
        if parent.tree_id != row.tree_id:
            self.fail(row, "message_tree_id", f"{row.tree_id!r}, but the parent on line {parent.line} differs")
        if parent.record["role"] == row.record["role"]:
            self.fail(row, "role", f"{row.record['role']!r} answers {row.record['role']!r} (line {parent.line})")

    def check_roots(self, rows: list[_Row]) -> None:
        roots: dict[str, _Row] = {}
        for row in rows:
            if row.parent_id is None:
                first = roots.setdefault(row.tree_id, row)
                if first is not row:
                    self.fail(row, "parent_id", f"tree {row.tree_id!r} has a root already, on line {first.line}")

    def check_reached(self, rows: list[_Row]) -> None:
        for row in rows:
            if not row.reached:
                self.fail(row, "parent_id", "a cycle: following the parents never leads to a root")

    def assemble(self, root: _Row, children: dict[str, list[_Row]]) -> Message | None:
        """The tree below `root`, or None if it was deleted; a loop, for trees deeper than Python's recursion limit."""
        top = self.message(root)
        stack = [(root, top)]
        while stack:
            row, message = stack.pop()
            row.reached = True
            pairs = [(child, self.message(child)) for child in children[row.id]]
            stack += pairs
            kept = [(child, reply) for child, reply in pairs if not child.deleted]
            self.check_ranks(kept)
            message.replies = sorted((reply for _, reply in kept), key=lambda r: (r.rank is None, r.rank or 0))
        return None if root.deleted else top

    def message(self, row: _Row) -> Message:
        record = row.record
        extra = {name: value for name, value in record.items() if name not in self.KNOWN}
        return Message(row.id, record["text"], record["role"], record.get("lang", "en"), record["rank"], extra=extra)

    def check_ranks(self, siblings: list[tuple[_Row, Message]]) -> None:
        ranked = [(reply.rank, row) for row, reply in siblings if reply.rank is not None]
        for expected, (rank, row) in enumerate(sorted(ranked, key=lambda pair: pair[0])):
            if rank != expected:
                self.fail(row, "rank", f"the ranks of its siblings go 0, 1, 2, ...: expected {expected}, found {rank}")
