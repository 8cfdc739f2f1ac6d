"""The loader of conversation trees: both OASST shapes, every kind of malformed file, and random trees."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import chat, loading
from course_utils.trees import DataError, Message, build, split_of

FIXTURES = Path(__file__).parent / "fixtures"


def record(message_id: str, parent_id: str | None, role: str, rank: int | None = None, **more: object) -> dict:
    tree = message_id if parent_id is None else more.pop("tree", "root")
    text = f"text of {message_id}"
    return {
        "message_id": message_id,
        "parent_id": parent_id,
        "message_tree_id": tree,
        "role": role,
        "rank": rank,
        "text": text,
        **more,
    }


def good() -> list[dict]:
    return [
        record("root", None, "prompter"),
        record("a0", "root", "assistant", 0),
        record("a1", "root", "assistant", 1),
        record("q1", "a0", "prompter"),
        record("b0", "q1", "assistant", 0),
    ]


def changed(line: int, **fields: object) -> list[dict]:
    rows = good()
    rows[line - 1].update(fields)
    return rows


@pytest.mark.parametrize(
    ("rows", "line", "name"),
    [
        (changed(2, text=""), 2, "text"),
        (changed(2, text="  \n"), 2, "text"),
        (changed(3, text=None), 3, "text"),
        (changed(2, role="bot"), 2, "role"),
        (changed(2, role="prompter"), 2, "role"),
        (changed(1, role="assistant"), 1, "role"),
        (changed(4, message_id="a0"), 4, "message_id"),
        (changed(4, message_id=7), 4, "message_id"),
        (changed(4, parent_id="nobody"), 4, "parent_id"),
        (changed(4, parent_id=3.5), 4, "parent_id"),
        (changed(4, message_tree_id="other"), 4, "message_tree_id"),
        (changed(4, message_tree_id=""), 4, "message_tree_id"),
        (changed(3, rank=2), 3, "rank"),
        (changed(3, rank=0), 3, "rank"),
        (changed(3, rank=-1), 3, "rank"),
        (changed(3, rank="best"), 3, "rank"),
        (changed(2, lang=5), 2, "lang"),
        ([*good(), record("root2", None, "prompter") | {"message_tree_id": "root"}], 6, "parent_id"),
        ([*good(), record("x", "y", "prompter"), record("y", "x", "assistant")], 6, "parent_id"),
        ([*good(), ["not", "an", "object"]], 6, "(whole line)"),
        ([{"message_tree_id": "t", "prompt": "not a message"}], 1, "prompt"),
    ],
)
def test_malformed_files_name_file_line_and_field(rows, line, name, tmp_path):
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError) as error:
        loading.load_conversations(path)
    assert str(error.value).startswith(f"made.jsonl, line {line}, field '{name}': ")


def test_cycle_is_called_a_cycle():
    with pytest.raises(DataError, match="cycle"):
        build([*good(), record("x", "y", "prompter"), record("y", "x", "assistant")])


def test_bad_json_and_wrong_encoding_name_the_line(tmp_path):
    path = tmp_path / "made.jsonl"
    line = json.dumps(good()[0]).encode()
    path.write_bytes(line + b"\n{broken\n")
    with pytest.raises(DataError, match="made.jsonl, line 2: not valid JSON"):
        loading.load_conversations(path)
    path.write_bytes(line + b'\n{"text": "caf\xe9"}\n')
    with pytest.raises(DataError, match="made.jsonl, line 2: not UTF-8"):
        loading.load_conversations(path)


def test_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nothing.jsonl"):
        loading.load_conversations("nothing.jsonl")


def outline(message: Message) -> tuple:
    return message.message_id, message.role, message.rank, [outline(reply) for reply in message.replies]


def test_flat_and_nested_exports_give_the_same_trees():
    """Small files with the fields that OASST exports have: deleted, synthetic, labels, emojis, null ranks."""
    flat = loading.load_conversations(FIXTURES / "oasst_messages.jsonl")
    nested = loading.load_conversations(FIXTURES / "oasst_trees.jsonl")
    assert [outline(tree) for tree in flat] == [outline(tree) for tree in nested]
    assert [turn["content"] for turn in chat.top_thread(flat[0])] == [
        "Why do cats purr?",
        "Often when content.",
        "And when not?",
        "Also when in pain.",
    ]
    assert all(message.text != "spam" for tree in flat for message in tree.walk())
    assert flat[0].replies[-1].rank is None
    assert flat[0].extra["labels"]["name"] == ["spam", "quality"]


def test_ranks_written_by_pandas_are_read():
    rows = changed(3, rank=1.0)
    rows[3]["rank"] = float("nan")
    assert [reply.rank for reply in build(rows)[0].replies] == [0, 1]


def test_deep_trees_do_not_hit_the_recursion_limit():
    rows = [record("m0", None, "prompter")]
    for n in range(1, 3000):
        rows.append(record(f"m{n}", f"m{n - 1}", ("prompter", "assistant")[n % 2], tree="m0"))
    assert len(chat.top_thread(build(rows)[0])) == 3000


def test_splits_are_fixed_and_about_80_10_10():
    ids = [f"tree-{n}" for n in range(5000)]
    share = {split: sum(split_of(i) == split for i in ids) / 5000 for split in ("train", "validation", "test")}
    assert share["train"] == pytest.approx(0.8, abs=0.02)
    assert share["validation"] == pytest.approx(0.1, abs=0.02)
    assert [split_of(i) for i in ids[:6]] == [split_of(i) for i in ids[:6]]
    parts = [loading.load_conversations(split=split) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(loading.load_conversations())


@st.composite
def forests(draw) -> list[dict]:
    """Random valid forests, their lines in random order."""
    rows = []
    for t in range(draw(st.integers(1, 3))):
        nodes = [record(f"t{t}", None, "prompter")]
        for n in range(draw(st.integers(0, 12))):
            parent = draw(st.sampled_from(nodes))
            role = "assistant" if parent["role"] == "prompter" else "prompter"
            siblings = sum(row["parent_id"] == parent["message_id"] for row in nodes)
            rank = siblings if role == "assistant" else None
            nodes.append(record(f"t{t}-{n}", parent["message_id"], role, rank, tree=f"t{t}"))
        rows += nodes
    return draw(st.permutations(rows))


@given(forests())
@settings(max_examples=100, deadline=None)
def test_random_forests_keep_every_message_and_sort_replies(rows):
    trees = build(rows)
    messages = [message for tree in trees for message in tree.walk()]
    assert sorted(m.message_id for m in messages) == sorted(row["message_id"] for row in rows)
    parents = {row["message_id"]: row["parent_id"] for row in rows}
    for message in messages:
        assert all(parents[reply.message_id] == message.message_id for reply in message.replies)
        ranks = [reply.rank for reply in message.replies if reply.rank is not None]
        assert ranks == sorted(ranks)


@given(
    forests(),
    st.randoms(use_true_random=False),
    st.sampled_from(["drop", "role", "text", "duplicate", "rank", "cycle"]),
)
@settings(max_examples=100, deadline=None)
def test_random_corruptions_are_never_accepted(rows, rng: random.Random, corruption):
    rows = [dict(row) for row in rows]
    row = rng.choice(rows)
    has_children = any(other["parent_id"] == row["message_id"] for other in rows)
    if corruption == "drop":
        if not has_children:
            return
        rows.remove(row)
    elif corruption == "role":
        row["role"] = {"prompter": "assistant", "assistant": "prompter"}[row["role"]]
    elif corruption == "text":
        row["text"] = " "
    elif corruption == "duplicate":
        rows.append(dict(row))
    elif corruption == "rank":
        if row["rank"] is None:
            return
        row["rank"] += 100
    elif corruption == "cycle":
        row["parent_id"] = row["message_id"]
    with pytest.raises(DataError, match=r"line \d+, field"):
        build(rows)
