"""Files of one's own in every published shape: the same threads come out, and what is broken is named by its line."""

import gzip
import json
from pathlib import Path

import pytest

from course_utils import chat, datafiles
from course_utils.core.rows import DataError, NothingLeft
from tests.test_trees import FIXTURES

TURNS = [("user", "Hi?"), ("assistant", "Hello."), ("user", "More"), ("assistant", "That is all.")]
THREAD = [{"role": role, "content": text} for role, text in TURNS]
SPEAKERS = {"user": "human", "assistant": "gpt"}
SHAREGPT = {"id": "1", "conversations": [{"from": SPEAKERS[role], "value": text} for role, text in TURNS]}
OPENAI = {"messages": THREAD}
ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "Below is ..."}
OASST = [
    {"message_id": "a", "parent_id": None, "message_tree_id": "a", "role": "prompter", "text": "Hi?", "lang": "en"},
    {"message_id": "b", "parent_id": "a", "message_tree_id": "a", "role": "assistant", "text": "No.", "rank": 1},
    {"message_id": "c", "parent_id": "a", "message_tree_id": "a", "role": "assistant", "text": "Hello.", "rank": 0},
]


def written(folder: Path, rows: list, name: str = "own.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("row", [SHAREGPT, OPENAI], ids=["ShareGPT", "OpenAI"])
def test_lists_of_turns_are_the_same_thread(tmp_path, row):
    assert chat.load_threads(written(tmp_path, [row, row])) == [THREAD, THREAD]


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        (ALPACA, "Add.\n\n1 and 2", "3"),
        (ALPACA | {"input": ""}, "Add.", "3"),
        ({"instruction": "Add.", "output": "3"}, "Add.", "3"),
        ({"prompt": "Add.", "completion": "3"}, "Add.", "3"),
        ({"prompt": THREAD[:1], "completion": THREAD[1:2]}, "Hi?", "Hello."),
    ],
    ids=["Alpaca", "blank input", "no input", "prompt", "prompt of turns"],
)
def test_pairs_are_a_question_with_its_answer(tmp_path, row, question, answer):
    assert chat.load_threads(written(tmp_path, [row])) == [chat.question(question, answer)]


def test_what_stands_before_the_question_in_fields_of_its_own_is_kept(tmp_path):
    system = {"role": "system", "content": "Be short."}
    assert chat.load_threads(written(tmp_path, [SHAREGPT | {"system": "Be short."}])) == [[system, *THREAD]]
    alpaca = ALPACA | {"input": "", "system": "Be short.", "history": [["Hi?", "Hello."]]}
    assert chat.load_threads(written(tmp_path, [alpaca])) == [[system, *THREAD[:2], *chat.question("Add.", "3")]]
    assert chat.load_threads(written(tmp_path, [SHAREGPT | {"system": ""}, SHAREGPT | {"system": None}])) == 2 * [
        THREAD
    ]


@pytest.mark.parametrize("history", [7, [7], [["one"]], [["one", "two", "three"]]], ids=str)
def test_a_history_that_is_no_list_of_pairs_is_named_by_its_line(tmp_path, history):
    with pytest.raises(DataError, match=r"own.jsonl, line 2: the history is no list of pairs"):
        chat.load_threads(written(tmp_path, [ALPACA, ALPACA | {"history": history}]))


def test_a_row_with_an_id_like_oasst_s_is_what_its_other_fields_say(tmp_path):
    assert chat.load_threads(written(tmp_path, [{"message_id": "1", **OPENAI}])) == [THREAD]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": None, "output": "x"},
        {"prompt": None, "completion": "x"},
        {"prompt": THREAD[:1], "completion": None},
        {"prompt": "Add.", "completion": None},
    ],
    ids=str,
)
def test_what_is_missing_in_a_pair_is_named_by_its_line(tmp_path, row):
    with pytest.raises(DataError, match="own.jsonl, line 1: .*missing or not text"):
        chat.load_threads(written(tmp_path, [row]))


def test_of_trees_too_nothing_may_be_left_for_a_split(tmp_path):
    empty = next(split for split in datafiles.SPLITS if split != datafiles.split_of("a"))
    with pytest.raises(NothingLeft, match=f"the split '{empty}' is empty"):
        chat.load_threads(written(tmp_path, OASST), empty)


def test_trees_give_their_best_threads(tmp_path):
    assert chat.load_threads(written(tmp_path, OASST)) == [chat.question("Hi?", "Hello.")]
    for name in ("oasst_messages.jsonl", "oasst_trees.jsonl"):
        trees = datafiles.load_conversations(FIXTURES / name)
        assert chat.load_threads(FIXTURES / name) == [chat.top_thread(tree) for tree in trees]


def test_one_array_and_a_packed_file_are_read(tmp_path):
    array = tmp_path / "own.json"
    array.write_text(json.dumps([OPENAI, THREAD]), encoding="utf-8")
    packed = tmp_path / "own.jsonl.gz"
    packed.write_bytes(gzip.compress((json.dumps(OPENAI) + "\n" + json.dumps(SHAREGPT)).encode()))
    assert chat.load_threads(array) == chat.load_threads(packed) == [THREAD, THREAD]


def test_splits_are_disjoint_and_whole_and_keep_a_question_on_one_side(tmp_path):
    rows = [{"prompt": f"Question {n % 50}?", "completion": f"{n}"} for n in range(100)]
    path = written(tmp_path, rows)
    parts = {split: chat.load_threads(path, split) for split in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(chat.load_threads(path)) == 100
    asked = {split: {thread[0]["content"] for thread in threads} for split, threads in parts.items()}
    assert sum(map(len, asked.values())) == 50
    assert len(parts["train"]) > 60


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "### Human: ..."}, "own.jsonl, line 2: no conversation in a known shape, but the fields text; known"),
        ({"messages": [{"role": "user"}]}, r"own.jsonl, line 2: Thread, turn 0.*the content is missing"),
        ({"messages": []}, "own.jsonl, line 2: Thread has no turns"),
        ({"messages": "Hi"}, "own.jsonl, line 2: Thread: expected a list of turns, found str"),
        ({"conversations": [{"value": "Hi"}]}, "own.jsonl, line 2: Thread, turn 0.*the role is missing"),
        ({"instruction": "Add.", "output": None}, "own.jsonl, line 2: Thread, turn 1.*the content is missing"),
        (7, "own.jsonl, line 2: Thread: expected a list of turns, found int"),
    ],
    ids=str,
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path, row, words):
    with pytest.raises(DataError, match=words):
        chat.load_threads(written(tmp_path, [OPENAI, row]))


def test_what_is_no_json_is_named_by_its_line(tmp_path):
    path = written(tmp_path, [OPENAI])
    path.write_text(path.read_text(encoding="utf-8") + "{'messages': []}\n", encoding="utf-8")
    with pytest.raises(DataError, match="own.jsonl, line 2: not valid JSON"):
        chat.load_threads(path)


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(DataError, match="own.jsonl has no thread: it is empty"):
        chat.load_threads(written(tmp_path, []))
    with pytest.raises(DataError, match="own.jsonl has no thread: all of its 1 threads lie in other parts than 'test'"):
        chat.load_threads(written(tmp_path, [OPENAI]), "test")
    with pytest.raises(ValueError, match="Unknown split 'held-out'"):
        chat.load_threads(written(tmp_path, [OPENAI]), "held-out")


def test_a_file_of_ones_own_is_encoded_as_the_course_s_is(tokenizer, tmp_path):
    """Shape by shape: the same tokens, and nothing else is learned."""
    threads = chat.load_threads(written(tmp_path, [SHAREGPT]))
    assert chat.encode_all(threads, tokenizer) == [chat.encode(THREAD, tokenizer)]
