"""What notebook 04 defines, taken out of it and held against the file, transformers' own templates, and a count."""

import json

import pytest

from course_utils import chat, datafiles, lessons
from course_utils.core import files
from course_utils.datafiles import Message
from course_utils.studies import guanaco as study
from tests.conftest import made_examples

lesson = lessons.definitions("04_guanaco_sft")
THREADS = [
    chat.question("Two\nlines?", "One answer."),
    [*chat.question("a", "b"), *chat.question("c  c", "d d")],
    [*chat.question("Ähm, 12 × 3?", "36 🙂"), *chat.question("?", "!")],
]


def test_the_best_thread_is_the_path_of_rank_0_in_the_file():
    path = files.data_dir() / "conversations.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    below = {}
    for row in rows:
        below.setdefault(row["parent_id"], []).append(row)
    for tree in datafiles.load_conversations():
        (message,) = [row for row in below[None] if row["message_id"] == tree.message_id]
        texts = [message["text"]]
        while replies := below.get(message["message_id"]):
            message = next(row for row in replies if row["rank"] in (0, None))
            texts.append(message["text"])
        if message["role"] == "prompter":
            texts.pop()
        found = lesson.best_thread(tree)
        assert [turn["content"] for turn in found] == texts
        assert [turn["role"] for turn in found] == ["user", "assistant"] * (len(texts) // 2)


def test_a_reply_without_a_rank_comes_behind_those_with_one():
    replies = [Message("1", "none", "assistant"), Message("2", "ranked", "assistant", rank=0)]
    tree = Message("0", "q", "prompter", replies=replies)
    assert lesson.best_thread(tree)[1]["content"] == "ranked"


@pytest.mark.parametrize("thread", THREADS)
def test_ids_and_mask_are_those_of_a_template_that_marks_the_answers(tokenizer, thread):
    """transformers renders and marks the lesson's own template: what TRL trains on with assistant_only_loss."""
    how = {"chat_template": lesson.MARKED, "return_dict": True, "return_assistant_tokens_mask": True}
    other = tokenizer.apply_chat_template(thread, **how)
    ids, labels = lesson.encode(thread, tokenizer)
    assert ids == other["input_ids"]
    assert [int(label != -100) for label in labels] == other["assistant_masks"]


@pytest.mark.parametrize("thread", THREADS)
def test_what_is_learned_is_the_answers_and_their_ends(tokenizer, thread):
    ids, labels = lesson.encode(thread, tokenizer)
    learned = tokenizer.decode([label for label in labels if label != -100])
    assert learned == "".join(f" {turn['content']}<|im_end|>" for turn in thread if turn["role"] == "assistant")
    assert tokenizer.decode(ids) == lesson.written(thread, "<|im_end|>")
    assert {label for token, label in zip(ids, labels, strict=True) if label != token} == {-100}


def test_packing_is_that_of_the_study():
    rows = made_examples(3)
    for own in (True, False):
        assert lesson.packed(rows, own) == study.packed(rows, own)
