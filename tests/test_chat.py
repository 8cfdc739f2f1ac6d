"""Threads, templates and loss masks against brute force on tokens."""

import pytest
from transformers import DataCollatorForLanguageModeling

from course_utils import chat, loading
from course_utils.trees import Message

THREAD = [
    {"role": "user", "content": "Hi?"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Name a color!"},
    {"role": "assistant", "content": "Blue."},
]


def brute_force(thread: list[chat.Turn], tokenizer) -> tuple[list[int], list[int]]:
    """Guanaco text tokenized piece by piece, each piece with its own mask."""
    ids, mask = [], []
    for turn in thread:
        if turn["role"] == "user":
            pieces = [(f"### Human: {turn['content']}", 0)]
        else:
            pieces = [("### Assistant:", 0), (f" {turn['content']}{tokenizer.eos_token}", 1)]
        for text, answer in pieces:
            piece = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            mask += [answer] * len(piece)
    return ids, mask


def test_every_thread_of_the_course_is_tokenized_and_masked_as_by_hand(tokenizer):
    for tree in loading.load_conversations():
        thread = chat.top_thread(tree)
        ids, mask = brute_force(thread, tokenizer)
        example = chat.encode(thread, tokenizer)
        assert example["input_ids"] == ids
        assert example["labels"] == [i if answer else -100 for i, answer in zip(ids, mask, strict=True)]


def test_guanaco_text(tokenizer):
    text = "### Human: Hi?### Assistant: Hello.<|im_end|>### Human: Name a color!### Assistant: Blue.<|im_end|>"
    assert chat.render(THREAD, tokenizer) == text
    assert chat.render(THREAD[:1], tokenizer, ask=True) == "### Human: Hi?### Assistant:"


def test_asking_continues_to_exactly_the_training_text(tokenizer):
    """The prompt at inference is a prefix, in tokens, of what was trained on."""
    asked = tokenizer(chat.render(THREAD[:3], tokenizer, ask=True))["input_ids"]
    assert chat.encode(THREAD, tokenizer)["input_ids"][: len(asked)] == asked


def test_chatml_equals_the_models_own_template_but_for_the_system_message(tokenizer):
    own = tokenizer.apply_chat_template(THREAD, tokenize=False)
    assert own.endswith(chat.render(THREAD, tokenizer, "chatml"))


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
def test_supervised_text_is_the_answers_and_their_end(tokenizer, template):
    example = chat.encode(THREAD, tokenizer, template)
    kept = [label for label in example["labels"] if label != chat.IGNORE]
    assert tokenizer.decode(kept).replace(" ", "") == "Hello.<|im_end|>Blue.<|im_end|>"
    assert kept.count(tokenizer.eos_token_id) == 2


def test_train_on_all_labels_everything(tokenizer):
    example = chat.encode(THREAD, tokenizer, train_on="all")
    assert example["labels"] == example["input_ids"]


def test_truncation_that_leaves_nothing_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="No token is left to train on"):
        chat.encode(THREAD[:2], tokenizer, max_length=4)


def test_encode_all_leaves_out_long_threads_whole(tokenizer):
    encoded = chat.encode_all([THREAD[:2], THREAD], tokenizer, max_length=20)
    assert len(encoded) == 1
    assert encoded[0]["input_ids"][-1] == tokenizer.eos_token_id


def test_unknown_names_are_errors(tokenizer):
    with pytest.raises(ValueError, match="guanaco, chatml"):
        chat.encode(THREAD, tokenizer, "vicuna")
    with pytest.raises(ValueError, match="'answers' or 'all'"):
        chat.encode(THREAD, tokenizer, train_on="everything")


def tree() -> Message:
    """Two ranked answers; the best is followed by a question with two answers, and by one without."""
    second = Message(
        "q2", "And then?", "prompter", replies=[Message("a2", "Best", "assistant"), Message("b2", "Worst", "assistant")]
    )
    best = Message("a1", "Good", "assistant", rank=0, replies=[second, Message("q3", "Unanswered", "prompter")])
    return Message("q1", "Why?", "prompter", replies=[best, Message("b1", "Bad", "assistant", rank=1)])


def test_top_thread_follows_the_ranks():
    assert [turn["content"] for turn in chat.top_thread(tree())] == ["Why?", "Good", "And then?", "Best"]
    assert [turn["content"] for turn in chat.top_thread(tree(), worst=True)] == ["Why?", "Bad"]


def test_top_thread_ends_with_an_answer():
    cut = tree()
    cut.replies[0].replies = cut.replies[0].replies[1:]
    assert [turn["content"] for turn in chat.top_thread(cut)] == ["Why?", "Good"]


def test_the_usual_collator_would_mask_the_end_of_every_answer(tokenizer):
    """Why labels are decided by position: pad is the end-of-sequence token here, and this collator masks by id."""
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    example = chat.encode(THREAD, tokenizer)
    collated = DataCollatorForLanguageModeling(tokenizer, mlm=False)([{"input_ids": example["input_ids"]}])
    assert tokenizer.eos_token_id not in collated["labels"][0].tolist()
    assert example["labels"].count(tokenizer.eos_token_id) == 2
