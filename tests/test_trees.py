"""The loader of conversation trees: every published shape, malformed files of every kind, and random trees."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import chat, datafiles
from course_utils.core.files import ROOT
from course_utils.core.rows import numbered
from course_utils.course import datasheet
from course_utils.datafiles.trees import DataError, Message, build, split_of

FIXTURES = Path(__file__).parent / "fixtures"
NAN = float("nan")


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


def without(line: int, *names: str) -> list[dict]:
    rows = good()
    for name in names:
        del rows[line - 1][name]
    return rows


@pytest.fixture
def load(tmp_path) -> Callable[..., list[Message]]:
    """Trees out of a file of these rows, one a line."""

    def write_and_load(rows: list, **options: object) -> list[Message]:
        path = tmp_path / "made.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return datafiles.load_conversations(path, **options)

    return write_and_load


MALFORMED = [
    (changed(2, text=""), 2, "text"),
    (changed(2, text="  \n"), 2, "text"),
    (changed(3, text=None), 3, "text"),
    (without(3, "text"), 3, "text"),
    (changed(3, text=NAN), 3, "text"),
    (changed(3, text=["a", "list"]), 3, "text"),
    (changed(3, text="half \ud83d"), 3, "text"),
    (changed(3, model_name="half \ud83d"), 3, "model_name"),
    (changed(5, message_id="half \ud83d"), 5, "message_id"),
    (changed(2, role="bot"), 2, "role"),
    (changed(2, role=["assistant"]), 2, "role"),
    (changed(2, role="prompter"), 2, "role"),
    (changed(1, role="assistant"), 1, "role"),
    (changed(4, message_id="a0"), 4, "parent_id"),
    (changed(4, message_id=7), 4, "message_id"),
    (changed(4, parent_id="nobody"), 4, "parent_id"),
    (changed(4, parent_id=3.5), 4, "parent_id"),
    (changed(4, message_tree_id="other"), 4, "message_tree_id"),
    (changed(4, message_tree_id=""), 4, "message_tree_id"),
    (changed(3, rank=0), 3, "rank"),
    (changed(3, rank=-1), 3, "rank"),
    (changed(3, rank=0.5), 3, "rank"),
    (changed(3, rank=True), 3, "rank"),
    (changed(3, rank="best"), 3, "rank"),
    (changed(3, rank=float("inf")), 3, "rank"),
    (changed(2, lang=5), 2, "lang"),
    (changed(2, deleted="false"), 2, "deleted"),
    (changed(2, review_result="no"), 2, "review_result"),
    (changed(5, replies="none"), 5, "replies"),
    (changed(5, replies=["not a message"]), 5, "replies"),
    (changed(4, replies=[record("c", "a1", "assistant")]), 4, "parent_id"),
    ([*good(), record("root2", None, "prompter") | {"message_tree_id": "root"}], 6, "parent_id"),
    ([*good(), record("x", "y", "prompter"), record("y", "x", "assistant")], 6, "parent_id"),
    ([*good(), ["not", "an", "object"]], 6, "(whole row)"),
    ([{"message_tree_id": "t", "prompt": "not a message"}], 1, "prompt"),
]


@pytest.mark.parametrize(("rows", "line", "name"), MALFORMED)
def test_malformed_files_name_file_line_and_field(rows, line, name, load):
    with pytest.raises(DataError) as error:
        load(rows)
    assert str(error.value).startswith(f"made.jsonl, line {line}, field '{name}': ")


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_a_file_of_threads_is_named_for_what_it_is(name):
    thread = {"id": 7, name: [{"role": "user", "content": "Hi?"}]}
    with pytest.raises(DataError, match=rf"field '{name}': a list of turns, not an OASST message; chat.load_threads"):
        build(numbered([thread], "made"))


def test_cycle_is_called_a_cycle(load):
    with pytest.raises(DataError, match="cycle"):
        load([*good(), record("x", "y", "prompter"), record("y", "x", "assistant")])


def outline(message: Message) -> tuple:
    return message.message_id, message.role, message.rank, [outline(reply) for reply in message.replies]


def test_flat_and_nested_exports_give_the_same_trees():
    """Small files with the fields that OASST exports have: deleted, synthetic, labels, emojis, null ranks."""
    flat = datafiles.load_conversations(FIXTURES / "oasst_messages.jsonl")
    nested = datafiles.load_conversations(FIXTURES / "oasst_trees.jsonl")
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


def shape(trees: list[Message]) -> list[list[tuple]]:
    return [[(m.message_id, [r.message_id for r in m.replies]) for m in tree.walk()] for tree in trees]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (changed(3, rank=1.0), [("a0", 0), ("a1", 1)]),
        (changed(3, rank=NAN), [("a0", 0), ("a1", None)]),
        (changed(2, rank=7), [("a1", 1), ("a0", 7)]),
        (changed(2, rank=None), [("a1", 1), ("a0", None)]),
        (changed(2, rank=2), [("a1", 1), ("a0", 2)]),
        ([*good(), record("a2", "root", "assistant", 0, deleted=True)], [("a0", 0), ("a1", 1)]),
        (changed(2, deleted=True), [("a1", 1)]),
    ],
    ids=[
        "float",
        "NaN",
        "wide gap",
        "rank 0 unranked",
        "rank 0 gone",
        "same rank, deleted",
        "best deleted",
    ],
)
def test_ranks_are_an_order_and_may_have_gaps(rows, expected, load):
    """A ranked reply that was deleted later leaves a gap; `rank` stays as published."""
    assert [(reply.message_id, reply.rank) for reply in load(rows)[0].replies] == expected


def nested(rows: list[dict], message_id: str, **drop: bool) -> dict:
    """The message and its replies as one object."""
    row = next(row for row in rows if row["message_id"] == message_id)
    replies = [nested(rows, other["message_id"], **drop) for other in rows if other["parent_id"] == message_id]
    kept = {name: value for name, value in row.items() if not drop.get(name)}
    return {**kept, "replies": replies}


NO_IDS = {"message_tree_id": True, "parent_id": True}
SHAPES = {
    "flat": good(),
    "flat, no tree ids": [{k: v for k, v in row.items() if k != "message_tree_id"} for row in good()],
    "flat, replies null": [row | {"replies": None} for row in good()],
    "flat, replies before questions": good()[::-1],
    "tree with prompt": [{"message_tree_id": "root", "prompt": nested(good(), "root", **NO_IDS)}],
    "tree with prompt, no tree id": [{"prompt": nested(good(), "root", **NO_IDS)}],
    "nested message": [nested(good(), "root")],
    "nested message, no ids": [nested(good(), "root", **NO_IDS)],
    "nested message, tree id, prompt null": [{"message_tree_id": "root", "prompt": None, **nested(good(), "root")}],
    "nested below flat": [*good()[:3], nested(good(), "q1")],
}


@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES)
def test_every_published_shape_gives_the_same_tree(rows, load):
    assert [outline(tree) for tree in load(rows)] == [
        ("root", "prompter", None, [
            ("a0", "assistant", 0, [("q1", "prompter", None, [("b0", "assistant", 0, [])])]),
            ("a1", "assistant", 1, []),
        ])
    ]  # fmt: skip


@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES)
def test_what_stands_twice_is_taken_once(rows, load):
    assert shape(load([*rows, *copy.deepcopy(rows)])) == shape(load(rows))


@pytest.mark.parametrize(
    ("rows", "name", "other"),
    [
        ([*good(), good()[2] | {"text": "another text"}], "text", "made.jsonl, line 3"),
        ([*good(), good()[2] | {"rank": 5}], "rank", "made.jsonl, line 3"),
        ([nested(good(), "root"), nested(good()[:-1], "root")], "replies", "made.jsonl, line 1"),
        ([nested(good()[:-1], "root"), nested(good(), "root")], "replies", "made.jsonl, line 1"),
        ([nested(good(), "root"), nested(changed(5, text="changed"), "root")], "text", "made.jsonl, line 1"),
    ],
)
def test_what_stands_twice_but_differs_names_both_places(rows, name, other, load):
    with pytest.raises(DataError) as error:
        load(rows)
    assert str(error.value).startswith(f"made.jsonl, line {len(rows)}, field '{name}': ")
    assert other in str(error.value)


def test_labels_with_nan_are_equal_to_themselves(load):
    rows = [row | {"labels": {"value": [NAN]}, "detoxify": NAN} for row in good()]
    assert shape(load([*rows, *rows])) == shape(load(good()))


@pytest.mark.parametrize("missing", [{"lang": None}, {"lang": NAN}, {}])
def test_a_language_that_is_not_stated_is_undetermined(missing, load):
    rows = good()
    rows[0] = {**rows[0], **missing}
    assert load(rows)[0].lang == "und"


@pytest.mark.parametrize("text", ["", None, "half \ud83d"])
@pytest.mark.parametrize("mark", [{"deleted": True}, {"deleted": 1.0}, {"review_result": False}])
def test_deleted_messages_and_spam_are_left_out_with_what_answers_them(mark, text, load):
    assert shape(load(changed(2, text=text, **mark))) == [[("root", ["a1"]), ("a1", [])]]


@pytest.mark.parametrize("mark", [{}, {"deleted": None, "review_result": None}, {"deleted": NAN, "review_result": NAN}])
def test_messages_that_nobody_reviewed_are_kept(mark, load):
    assert shape(load(changed(2, **mark))) == shape(load(good()))


def test_spam_is_kept_when_asked_for_and_deleted_messages_are_not(load):
    rows = changed(2, review_result=False)
    rows[4]["deleted"] = True
    assert shape(load(rows, keep_spam=True)) == [[("root", ["a0", "a1"]), ("a0", ["q1"]), ("q1", []), ("a1", [])]]


def deep(depth: int) -> list[dict]:
    """A thread of so many messages."""
    rows = [record("m0", None, "prompter")]
    for n in range(1, depth):
        rows.append(record(f"m{n}", f"m{n - 1}", ("prompter", "assistant")[n % 2], tree="m0"))
    return rows


def test_deep_trees_do_not_hit_the_recursion_limit(load):
    tree, twin = load(deep(3000))[0], load(deep(3000))[0]
    assert len(chat.top_thread(tree)) == 3000
    assert [message.message_id for message in tree.walk()] == [f"m{n}" for n in range(3000)]
    assert datasheet.turns(tree) == 1500
    assert len(repr(tree)) < 1000
    assert tree == twin
    list(twin.walk())[-1].text = "another text"
    assert tree != twin


def test_trees_are_equal_when_shape_and_messages_are():
    a, b = (Message(name, name, "assistant") for name in "ab")
    chain = Message("root", "?", "prompter", replies=[Message("a", "a", "assistant", replies=[b])])
    assert chain != Message("root", "?", "prompter", replies=[a, b])
    assert chain == copy.deepcopy(chain)
    assert chain != "root"


def test_nested_json_too_deep_for_python_is_named(tmp_path):
    outer, depth = '{"message_id": "m", "role": "prompter", "text": "?", "replies": [', 100_000
    path = tmp_path / "made.jsonl"
    path.write_text("\n" + outer * depth + "]}" * depth, encoding="utf-8")
    with pytest.raises(DataError, match=r"made.jsonl, line 2: nested too deep.*one message a line"):
        datafiles.load_conversations(path)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([], {}, "it is empty"),
        (changed(1, deleted=True), {}, "deleted"),
        (changed(1, review_result=False), {}, "keep_spam=True"),
        (good(), {"split": "test"}, "split 'test' is empty.*leave out `split`"),
    ],
)
def test_a_file_without_a_tree_to_use_says_so(rows, options, words, load):
    with pytest.raises(DataError, match=f"(?s)made.jsonl.*{words}"):
        load(rows, **options)


def test_a_hub_data_set_goes_through_the_same_code(monkeypatch):
    """As the hub hands it out: null ranks, labels as a dict of lists, a gap, spam."""
    import datasets

    rows = [row | {"labels": {"name": ["spam"], "value": [0.0], "count": [3]}, "review_result": True} for row in good()]
    rows[1]["review_result"] = False
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split, revision: datasets.Dataset.from_list(rows))
    (tree,) = datafiles.load_conversations("hub:some/name")
    assert [reply.message_id for reply in tree.replies] == ["a1"]
    assert tree.extra["labels"] == {"name": ["spam"], "value": [0.0], "count": [3]}
    rows[2]["text"] = None
    with pytest.raises(DataError, match="hub:some/name, row 3, field 'text'"):
        datafiles.load_conversations("hub:some/name")


def test_the_hub_library_is_imported_only_when_asked_for():
    code = (
        "import sys; from course_utils import datafiles as d; d.load_conversations(); print('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("error", [OSError("no network\nmore"), ValueError()])
def test_a_hub_data_set_that_cannot_be_had_says_what_to_do(error, monkeypatch):
    import datasets

    def failing(name: str, **_: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", failing)
    with pytest.raises(OSError, match="'some/name'.*leave out `source`"):
        datafiles.load_conversations("hub:some/name")


def test_a_hub_without_an_id_or_without_its_library_says_what_to_do(monkeypatch):
    with pytest.raises(ValueError, match="'hub:' names no data set"):
        datafiles.load_conversations("hub:")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        datafiles.load_conversations("hub:some/name")


def test_splits_are_fixed_and_about_80_10_10():
    ids = [f"tree-{n}" for n in range(5000)]
    share = {split: sum(split_of(i) == split for i in ids) / 5000 for split in ("train", "validation", "test")}
    assert share["train"] == pytest.approx(0.8, abs=0.02)
    assert share["validation"] == pytest.approx(0.1, abs=0.02)
    assert [split_of(i) for i in ids[:6]] == [split_of(i) for i in ids[:6]]
    parts = [datafiles.load_conversations(split=split) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(datafiles.load_conversations())


@st.composite
def forests(draw) -> list[dict]:
    """Random valid forests, lines in random order, with gaps in the ranks, deleted messages and spam."""
    rows = []
    for t in range(draw(st.integers(1, 3))):
        nodes = [record(f"t{t}", None, "prompter")]
        for n in range(draw(st.integers(0, 12))):
            parent = draw(st.sampled_from(nodes))
            role = "assistant" if parent["role"] == "prompter" else "prompter"
            rank = draw(st.sampled_from([None, 13 - n, 2.0 * (13 - n)])) if role == "assistant" else None
            taken = [row["rank"] for row in nodes if row["parent_id"] == parent["message_id"]]
            nodes.append(
                record(
                    f"t{t}-{n}",
                    parent["message_id"],
                    role,
                    None if rank in taken else rank,
                    tree=f"t{t}",
                    deleted=draw(st.sampled_from([None, False, False, True])),
                    review_result=draw(st.sampled_from([None, True, True, False])),
                )
            )
        rows += nodes
    return draw(st.permutations(rows))


@given(forests(), st.booleans(), st.data())
@settings(max_examples=100, deadline=None)
def test_random_forests_keep_what_they_should_and_sort_replies(rows, keep_spam, data):
    """Kept is what has no deleted message, and no spam, on its way up to the root."""
    by_id = {row["message_id"]: row for row in rows}

    def kept(row: dict) -> bool:
        gone = row.get("deleted") or (row.get("review_result") is False and not keep_spam)
        return not gone and (row["parent_id"] is None or kept(by_id[row["parent_id"]]))

    written = [dict(row) for row in rows]
    for row in written:  # what can be derived need not be there
        if data.draw(st.booleans()):
            del row["message_tree_id"]
    written += [dict(row) for row in data.draw(st.lists(st.sampled_from(written), max_size=4))]
    trees = build(numbered(written, "made"), keep_spam=keep_spam)
    messages = [message for tree in trees for message in tree.walk()]
    assert sorted(m.message_id for m in messages) == sorted(row["message_id"] for row in rows if kept(row))
    for message in messages:
        assert all(by_id[reply.message_id]["parent_id"] == message.message_id for reply in message.replies)
        assert all(reply.rank == by_id[reply.message_id]["rank"] for reply in message.replies)
        ranks = [reply.rank for reply in message.replies]
        ranked = [rank for rank in ranks if rank is not None]
        assert ranks == sorted(ranked) + [None] * (len(ranks) - len(ranked))


@given(forests(), st.data(), st.sampled_from(["drop", "role", "text", "duplicate", "rank", "cycle"]))
@settings(max_examples=100, deadline=None)
def test_random_corruptions_are_never_accepted(rows, data, corruption):
    rows = [dict(row) for row in rows]
    row = data.draw(st.sampled_from(rows))
    has_children = any(other["parent_id"] == row["message_id"] for other in rows)
    if corruption == "drop":
        if not has_children:
            return
        rows.remove(row)
    elif corruption == "role":
        row["role"] = {"prompter": "assistant", "assistant": "prompter"}[row["role"]]
    elif corruption == "text":
        row.update(text=" ", deleted=False, review_result=True)
    elif corruption == "duplicate":
        rows.append(row | {"text": "another text"})
    elif corruption == "rank":
        row["rank"] = -1
    elif corruption == "cycle":
        row["parent_id"] = row["message_id"]
    with pytest.raises(DataError, match=r"made, row \d+, field"):
        build(numbered(rows, "made"))
