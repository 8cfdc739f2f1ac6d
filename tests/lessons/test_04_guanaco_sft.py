"""What notebook 04 defines, taken out of it and held against the file, transformers' own templates, and a count."""

import copy
import json

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from course_utils import chat, datafiles, lessons
from course_utils.core import files
from course_utils.datafiles import Message
from course_utils.studies import guanaco as study
from tests.conftest import tiny

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


def test_trl_trains_on_the_same_ids_and_labels(tokenizer, tmp_path):
    """Its trainer makes both itself, from the marked template."""
    marked = copy.deepcopy(tokenizer)
    marked.chat_template = lesson.MARKED
    how = {"assistant_only_loss": True, "max_length": None, "use_cpu": True, "bf16": False, "report_to": "none"}
    trainer = SFTTrainer(
        model=tiny(len(tokenizer)),
        args=SFTConfig(str(tmp_path), **how),
        train_dataset=Dataset.from_list([{"messages": thread} for thread in THREADS]),
        processing_class=marked,
    )
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(len(THREADS))])
    for place, thread in enumerate(THREADS):
        ids, labels = lesson.encode(thread, tokenizer)
        assert batch["input_ids"][place][: len(ids)].tolist() == ids
        assert batch["labels"][place].tolist() == labels + [-100] * (batch["labels"].shape[1] - len(ids))


@pytest.mark.parametrize("thread", THREADS)
def test_qlora_py_has_labels_on_all_but_the_beginning_and_one_end(tokenizer, thread):
    ids, labels = lesson.as_qlora(thread, tokenizer)
    assert labels == [-100, *ids[1:]]
    assert tokenizer.decode(ids[1:]) == lesson.written(thread, "") + "<|im_end|>"


PLACES = {"best": 0, "worst": -1}  # of the ranked replies to a question


def test_the_best_replies_have_more_tokens_and_fewer_characters(tokenizer):
    """As the text of the study says; by 7 and by 6 %."""
    trees = datafiles.load_conversations(split="train")
    tokens = {
        side: sum(
            label != -100
            for tree in trees
            for thread in study.first_replies(tree, side)
            for label in chat.encode(thread, tokenizer)["labels"]
        )
        for side in ("best", "worst")
    }
    assert 1.06 < tokens["best"] / tokens["worst"] < 1.08
    characters = {side: sum(len(tree.replies[place].text) for tree in trees) for side, place in PLACES.items()}
    assert 0.93 < characters["best"] / characters["worst"] < 0.95


@pytest.mark.parametrize("thread", THREADS)
def test_what_is_learned_is_the_answers_and_their_ends(tokenizer, thread):
    ids, labels = lesson.encode(thread, tokenizer)
    learned = tokenizer.decode([label for label in labels if label != -100])
    assert learned == "".join(f" {turn['content']}<|im_end|>" for turn in thread if turn["role"] == "assistant")
    assert tokenizer.decode(ids) == lesson.written(thread, "<|im_end|>")
    assert {label for token, label in zip(ids, labels, strict=True) if label != token} == {-100}
