"""Is this file a forest of valid conversation trees? Reads the OASST message-tree schema in every published shape.

OASST (Köpf et al. 2023, arXiv 2304.07327) publishes one *message* per line, each naming its parent, or one *tree* per
line, with replies nested below its `prompt`; nested messages without a tree around them occur as well. All are read.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from course_utils.core.rows import DataError, Placed, check_characters, check_text, fail, short

__all__ = ["ROLES", "SPLITS", "DataError", "Message", "build", "split_of"]

ROLES = ("prompter", "assistant")
SPLITS = ("train", "validation", "test")
UNDETERMINED = "und"  # the language tag for a language that is not stated (BCP 47)
KNOWN = ("message_id", "parent_id", "message_tree_id", "text", "role", "lang", "rank", "replies", "prompt")


@dataclass(eq=False)
class Message:
    """One message and the replies to it, best-ranked first; unranked replies follow in file order.

    `rank` orders the replies to one message, 0 for the best, or is None. It stays as published and may have gaps: a
    reply that was ranked may have been deleted later. `lang` is "und" where the file states none; `extra` holds every
    other field of the row.
    """

    message_id: str
    text: str
    role: str
    lang: str = UNDETERMINED
    rank: int | None = None
    replies: list["Message"] = field(default_factory=list, repr=False)
    extra: dict[str, Any] = field(default_factory=dict)

    def walk(self) -> Iterator["Message"]:
        """This message, then everything below it, parents before children."""
        stack = [self]  # no recursion here and below: trees may be deeper than Python's limit
        while stack:
            message = stack.pop()
            yield message
            stack += reversed(message.replies)

    def __eq__(self, other: object) -> bool:
        """The same messages in the same places."""
        return isinstance(other, Message) and list(map(_own, self.walk())) == list(map(_own, other.walk()))


def _own(message: Message) -> tuple[object, ...]:
    """A message without its replies; their number, and the order of `walk`, say where each of them stands."""
    replies = len(message.replies)
    return message.message_id, message.text, message.role, message.lang, message.rank, message.extra, replies


def split_of(tree_id: str) -> str:
    """The split that a tree belongs to: 80/10/10 by a hash of its id, so that it never changes."""
    bucket = int(hashlib.sha256(tree_id.encode()).hexdigest()[:8], 16) % 10
    return SPLITS[max(0, bucket - 7)]


def build(placed: Iterable[Placed], *, keep_spam: bool = False) -> list[Message]:
    """Trees from OASST rows, in the order of their first message.

    Deleted messages and spam (`review_result` is false) are left out with their replies. What stands twice is taken
    once. A `message_tree_id` that is missing follows from the root.

    Args:
        placed: flat messages, nested messages or nested trees, each with its place (`rows.numbered` gives places).
        keep_spam: keep what the reviewers rejected.

    Raises:
        DataError: a field is missing or of the wrong type, one id stands for two different messages, a parent is
            missing, a tree has two roots or a cycle, roles do not alternate, or two replies share a rank.
    """
    rows: dict[str, _Row] = {}
    for place, item in placed:
        for row in _flatten(place, item, keep_spam):
            first = rows.setdefault(row.id, row)
            if first is not row:
                _check_same(row, first)
    children = defaultdict(list)
    for row in rows.values():
        _check_parent(row, rows)
        children[row.parent_id].append(row)
    _check_roots(children[None])
    trees = [_assemble(root, children) for root in children[None]]
    for row in rows.values():
        if not row.reached:
            fail(row.place, "parent_id", "a cycle: its parents lead in a circle; let the first message have no parent")
    return [tree for tree in trees if tree is not None]


@dataclass
class _Row:
    """A flat message: its fields, where NaN is None, ranks are integers, and `replies` their ids."""

    place: str
    fields: dict[str, Any]
    left_out: bool
    reached: bool = False  # is it part of a tree?

    def __post_init__(self) -> None:
        self.id: str = self.fields["message_id"]
        self.parent_id: str | None = self.fields["parent_id"]
        self.tree_id: str | None = self.fields["message_tree_id"]


def _flatten(place: str, item: object, keep_spam: bool) -> Iterator[_Row]:
    """The rows of one item: itself and, where replies are nested in it, all of them."""
    if not isinstance(item, dict):
        fail(place, "(whole row)", f"expected a JSON object, found {short(item)}")
    outer = {name: _null(value) for name, value in item.items()}
    root = item if outer.get("prompt") is None else outer["prompt"]
    if not isinstance(root, dict):
        fail(place, "prompt", f"expected a message, found {short(root)}")
    stack = [(root, outer.get("parent_id") if root is item else None)]
    while stack:
        message, parent_id = stack.pop()
        message = {name: _null(value) for name, value in message.items()}
        if message.get("parent_id") not in (None, parent_id):
            fail(
                place,
                "parent_id",
                f"expected {parent_id!r}, the message that it is nested in, found {message['parent_id']!r}",
            )
        replies = [] if message.get("replies") is None else message["replies"]
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            fail(place, "replies", f"expected a list of messages, found {short(replies)}")
        message["parent_id"] = parent_id
        if message.get("message_tree_id") is None:
            message["message_tree_id"] = outer.get("message_tree_id")
        message["replies"] = [reply.get("message_id") for reply in replies] or None
        yield _row(place, message, keep_spam)
        stack += [(reply, message["message_id"]) for reply in reversed(replies)]


def _null(value: object) -> object:
    """NaN is how pandas writes null."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _row(place: str, message: dict[str, Any], keep_spam: bool) -> _Row:
    """A message whose fields have been checked one by one."""
    if lists := [name for name in ("messages", "conversations") if isinstance(message.get(name), list)]:
        fail(place, lists[0], "a list of turns, not an OASST message; chat.load_threads reads such a file")
    check_text(place, "message_id", message.get("message_id"))
    for name in ("parent_id", "message_tree_id", "lang"):
        if message.get(name) is not None:
            check_text(place, name, message[name])
    if message.get("role") not in ROLES:
        fail(place, "role", f"expected 'prompter' (for the user) or 'assistant', found {short(message.get('role'))}")
    for name in ("deleted", "review_result"):
        if message.get(name) not in (None, False, True):
            fail(place, name, f"expected true, false or null, found {short(message[name])}")
    spam = message.get("review_result") is not None and not message["review_result"]
    left_out = bool(message.get("deleted")) or (spam and not keep_spam)
    if not left_out:  # what is left out is often empty
        whose = f"message {message['message_id']!r}: "
        check_text(place, "text", message.get("text"), whose)
        for name, value in message.items():
            if isinstance(value, str):
                check_characters(place, name, value, whose)
    return _Row(place, {**message, "rank": _rank(place, message.get("rank"))}, left_out)


def _rank(place: str, value: object) -> int | None:
    """A rank as an integer; tables written by pandas hold 0.0 for 0."""
    if value is None:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 0:
        fail(place, "rank", f"expected 0, 1, 2, ... or null, found {short(value)}")
    return int(value)


def _check_same(row: _Row, first: _Row) -> None:
    for name in {**first.fields, **row.fields}:
        ours, theirs = (json.dumps(r.fields.get(name), sort_keys=True, default=str) for r in (row, first))
        if ours != theirs:
            other = f"message {row.id!r} stands already in {first.place}, with another value"
            fail(row.place, name, f"{other}; keep one, or rename one")


def _check_parent(row: _Row, rows: dict[str, _Row]) -> None:
    if row.parent_id is None:
        if row.fields["role"] != "prompter":
            fail(row.place, "role", "the first message of a tree must be the prompter's")
        return
    parent = rows.get(row.parent_id)
    if parent is None:
        fail(row.place, "parent_id", f"there is no message {row.parent_id!r}; select whole trees, not single messages")
    if parent.fields["role"] == row.fields["role"]:
        same = f"{row.fields['role']!r} answers {row.fields['role']!r} ({parent.place})"
        fail(row.place, "role", f"{same}; they must take turns")


def _check_roots(roots: list[_Row]) -> None:
    firsts: dict[str, _Row] = {}
    for root in roots:
        root.tree_id = root.tree_id or root.id
        first = firsts.setdefault(root.tree_id, root)
        if first is not root:
            other = f"no parent, but tree {root.tree_id!r} has a first message already ({first.place})"
            fail(root.place, "parent_id", f"{other}; name its parent, or give it its own message_tree_id")


def _assemble(root: _Row, children: dict[str, list[_Row]]) -> Message | None:
    """The tree below `root`, or None if it is left out."""
    top = _message(root)
    stack = [(root, top)]
    while stack:
        row, message = stack.pop()
        row.reached = True
        pairs = [(child, _message(child)) for child in children[row.id]]
        stack += pairs
        for child, _ in pairs:
            child.tree_id = child.tree_id or row.tree_id
            if child.tree_id != row.tree_id:
                other = f"{row.tree_id!r}, as for its parent ({row.place})"
                fail(child.place, "message_tree_id", f"expected {other}, found {child.tree_id!r}")
        kept = [(child, reply) for child, reply in pairs if not child.left_out]
        _check_ranks(kept)
        message.replies = sorted((reply for _, reply in kept), key=lambda r: (r.rank is None, r.rank or 0))
    return None if root.left_out else top


def _message(row: _Row) -> Message:
    fields = row.fields
    extra = {name: value for name, value in fields.items() if name not in KNOWN}
    lang = fields.get("lang") or UNDETERMINED
    return Message(row.id, fields.get("text"), fields["role"], lang, fields["rank"], extra=extra)


def _check_ranks(siblings: list[tuple[_Row, Message]]) -> None:
    """No two replies to one message may have the same rank: which of them is better would be chance."""
    firsts: dict[int, _Row] = {}
    for row, reply in siblings:
        first = firsts.setdefault(reply.rank, row)
        if reply.rank is not None and first is not row:
            same = f"{reply.rank} is the rank of {first.id!r} as well ({first.place}), which answers the same message"
            fail(row.place, "rank", f"{same}; give each its own, or null where nobody ranked")
