"""Threads, templates and loss masks against brute force on tokens."""

import copy
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorForLanguageModeling

from course_utils import chat, datafiles
from course_utils.datafiles.trees import Message
from tests.conftest import toy_tokenizer

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
    for tree in datafiles.load_conversations():
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


def test_encode_all_leaves_out_long_and_unanswered_threads_whole_and_says_so(tokenizer, capsys):
    encoded = chat.encode_all([THREAD[:2], [], THREAD, THREAD[:1], THREAD], tokenizer, max_length=20)
    assert encoded == [chat.encode(THREAD[:2], tokenizer)]
    said = capsys.readouterr()
    assert said.err == "4 of 5 threads are left out: 2 without an answer, 2 longer than 20 tokens.\n"
    assert said.out == ""
    chat.encode_all([THREAD], tokenizer, max_length=100)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("threads", "problem"),
    [([], "there are none"), ([[]], "1 without an answer"), ([THREAD], "1 longer than 20 tokens")],
    ids=["none", "unanswered", "long"],
)
def test_nothing_left_to_encode_is_an_error(tokenizer, threads, problem):
    with pytest.raises(ValueError, match=problem):
        chat.encode_all(threads, tokenizer, max_length=20)


def test_a_thread_without_turns_is_an_error(tokenizer):
    for use in (chat.encode, chat.render):
        with pytest.raises(ValueError, match="Thread has no turns"):
            use([], tokenizer)


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


def test_the_worst_reply_is_one_that_was_ranked():
    """OASST has replies that nobody ranked; they stand behind the ranked ones."""
    replies = [Message(f"a{rank}", f"Rank {rank}", "assistant", rank=rank) for rank in (0, 1, None)]
    assert chat.top_thread(Message("q", "Why?", "prompter", replies=replies), worst=True)[1]["content"] == "Rank 1"
    unranked = [Message(name, name, "assistant") for name in ("first", "last")]
    assert chat.top_thread(Message("q", "Why?", "prompter", replies=unranked), worst=True)[1]["content"] == "first"


def test_the_worst_is_a_reply_to_the_prompter():
    """What a user says next is not chosen for being bad."""
    questions = [
        Message(f"q{n}", f"Rank {n}", "prompter", rank=n, replies=[Message(f"a{n}", "Yes.", "assistant")])
        for n in (0, 1)
    ]
    first = Message("a", "Why not?", "assistant", replies=questions)
    assert chat.top_thread(Message("q", "Why?", "prompter", replies=[first]), worst=True)[2]["content"] == "Rank 0"


def test_an_unanswered_tree_gives_an_empty_thread():
    assert chat.top_thread(Message("q", "Anybody?", "prompter")) == []


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


# Roles, contents and special tokens as they occur in other people's data


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
@pytest.mark.parametrize(("user", "assistant"), [("human", "gpt"), ("prompter", "assistant"), ("user", "model")])
def test_other_names_of_the_two_speakers_are_understood(tokenizer, template, user, assistant):
    names = {"user": user, "assistant": assistant}
    renamed = [{**turn, "role": names[turn["role"]]} for turn in THREAD]
    shared = [{"from": turn["role"], "value": turn["content"], "role": None} for turn in renamed]
    for thread in (renamed, shared):
        assert chat.encode(thread, tokenizer, template) == chat.encode(THREAD, tokenizer, template)


@pytest.mark.parametrize(
    ("template", "role", "known"),
    [
        ("guanaco", "system", r"user \(also prompter, human\), assistant"),
        ("guanaco", "tool", "user .*, assistant"),
        ("chatml", "tool", "system, user .*, assistant"),
        ("chatml", None, "'user' or 'assistant'"),
    ],
)
def test_a_role_without_a_place_in_the_template_is_an_error(tokenizer, template, role, known):
    thread = [*THREAD[:1], {"role": role, "content": "Secret."}, *THREAD[1:]]
    for use in (chat.encode, chat.render):
        with pytest.raises(ValueError, match=rf"Thread, turn 1 .*{role!r}.*{known}"):
            use(thread, tokenizer, template)
    with pytest.raises(ValueError, match=rf"Thread 2, turn 1 .*{role!r}"):
        chat.encode_all([THREAD, THREAD, thread], tokenizer, template)


def test_chatml_has_a_system_turn_and_does_not_train_on_it(tokenizer):
    system = {"role": "system", "content": "Be brief."}
    example = chat.encode([system, *THREAD], tokenizer, "chatml")
    own = tokenizer.apply_chat_template([system, *THREAD], return_dict=True)["input_ids"]
    assert example["input_ids"] == own
    trained = [label for label in example["labels"] if label != chat.IGNORE]
    assert tokenizer.decode(trained).replace(" ", "") == "Hello.<|im_end|>Blue.<|im_end|>"


NO_TEXT = [None, math.nan, 3, "", " \n\t", ["Hello."], [{"type": "text", "text": "Hello."}], "half \ud83d"]


@pytest.mark.parametrize("content", NO_TEXT, ids=repr)
@pytest.mark.parametrize("number", [0, 1], ids=["question", "answer"])
def test_content_that_is_not_text_is_an_error_with_its_place(tokenizer, content, number):
    thread = [dict(turn) for turn in THREAD[:2]]
    thread[number]["content"] = content
    place = rf"turn {number} \(counted from 0\), {thread[number]['role']}: the content (is|holds)"
    with pytest.raises(ValueError, match=f"Thread, {place}"):
        chat.encode(thread, tokenizer)
    with pytest.raises(ValueError, match=f"Thread 1, {place}"):
        chat.encode_all([THREAD, thread], tokenizer)


@pytest.mark.parametrize(
    ("thread", "way_out"),
    [
        ("Hi?", r"chat\.question"),
        ({"messages": THREAD}, r"row\['messages'\]"),
        (Message("q", "Hi?", "prompter"), r"chat\.top_thread"),
        (None, ""),
        (["Hi?"], ""),
    ],
    ids=["text", "row", "tree", "nothing", "list of texts"],
)
def test_what_is_not_a_list_of_turns_is_an_error(tokenizer, thread, way_out):
    with pytest.raises(ValueError, match=f"expected.*{way_out}"):
        chat.encode(thread, tokenizer)


def test_one_thread_where_several_are_expected_is_named(tokenizer):
    with pytest.raises(ValueError, match=r"Thread 0: expected a list of turns, found dict.*\[thread\]"):
        chat.encode_all(THREAD, tokenizer)


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
@pytest.mark.parametrize(
    "spelled", ["<|im_end|>", "<|im_start|>assistant\n", "a<|im_end|><|im_end|>b", "<|endoftext|>"]
)
def test_special_tokens_stand_only_where_the_template_puts_them(tokenizer, template, spelled):
    thread = [{**turn, "content": f"{turn['content']} {spelled} and on"} for turn in THREAD]
    special = set(tokenizer.all_special_ids) | set(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    plain, example = (chat.encode(each, tokenizer, template) for each in (THREAD, thread))
    for name in ("input_ids", "labels"):
        assert [i for i in example[name] if i in special] == [i for i in plain[name] if i in special]
    assert tokenizer.decode(example["input_ids"]) == chat.render(thread, tokenizer, template)
    asked = chat.encode_prompt(thread[:3], tokenizer, template)
    assert example["input_ids"][: len(asked)] == asked


def test_a_token_that_was_added_as_an_ordinary_one_ends_only_turns_too():
    """Fine-tuned models are published whose `<|im_end|>` is not marked as special."""
    tokenizer = toy_tokenizer(eos_token="</s>")
    tokenizer.add_tokens(["<|end|>"])
    tokenizer.eos_token = "<|end|>"
    ids = chat.encode(chat.question("he <|end|> he", "the <|end|> he"), tokenizer)["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1


# Prompts are what was trained on

odd = st.text(alphabet=" \n\t:#a.<|é\u3000\u200b🙂", min_size=1, max_size=12).filter(str.strip)


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
@settings(deadline=None)
@given(question=odd, answer=odd)
def test_a_question_is_asked_in_the_tokens_that_were_trained_on(tokenizer, template, question, answer):
    """An answer that starts with line breaks must not melt into the prompt's last token."""
    thread = chat.question(question, answer)
    example = chat.encode(thread, tokenizer, template)
    asked = tokenizer(chat.render(thread[:1], tokenizer, template, ask=True))["input_ids"]
    assert example["input_ids"][: len(asked)] == asked
    assert example["labels"][: len(asked)] == [chat.IGNORE] * len(asked)
    assert chat.IGNORE not in example["labels"][len(asked) : len(asked) + 2]
    assert tokenizer.decode(example["input_ids"]) == chat.render(thread, tokenizer, template)


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
@pytest.mark.parametrize("metaspace", [False, True], ids=["bytes", "metaspace"])
@settings(deadline=None)
@given(contents=st.lists(odd, min_size=4, max_size=4))
def test_every_prompt_of_a_conversation_is_a_prefix_of_it(template, metaspace, contents):
    tokenizer = toy_tokenizer(bos_token="<s>", eos_token="</s>", start="<s>", metaspace=metaspace)
    thread = [{**turn, "content": content} for turn, content in zip(THREAD, contents, strict=True)]
    ids = chat.encode(thread, tokenizer, template)["input_ids"]
    for end in (1, 3):
        asked = chat.encode_prompt(thread[:end], tokenizer, template)
        assert ids[: len(asked)] == asked


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
@pytest.mark.parametrize("metaspace", [False, True], ids=["bytes", "metaspace"])
def test_ordinary_text_is_tokenized_in_one_go(template, metaspace):
    tokenizer = toy_tokenizer(eos_token="</s>", metaspace=metaspace)
    ids = tokenizer(chat.render(THREAD, tokenizer, template))["input_ids"]
    assert chat.encode(THREAD, tokenizer, template)["input_ids"] == ids


@pytest.mark.parametrize("metaspace", [False, True], ids=["bytes", "metaspace"])
def test_a_spelled_token_gains_no_space(metaspace):
    """Llama-2-like tokenizers put a space before the start of a text, and so before each part of one."""
    tokenizer = toy_tokenizer(bos_token="<s>", eos_token="</s>", metaspace=metaspace)
    ids = chat.encode(chat.question("a </s> b<s>c", "x"), tokenizer)["input_ids"]
    assert "a </s> b<s>c###" in tokenizer.decode(ids)
    assert ids.count(tokenizer.eos_token_id) == 1


# Tokenizers of other models


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
@pytest.mark.parametrize("around", [{"start": "<s>"}, {"start": "<s>", "end": "</s>"}], ids=["bos", "bos and eos"])
@pytest.mark.parametrize("train_on", ["answers", "all"])
def test_a_thread_starts_once_if_the_tokenizer_starts_texts(template, around, train_on):
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    plain = chat.encode(THREAD, toy_tokenizer(**names), template, train_on=train_on)
    tokenizer = toy_tokenizer(**names, **around)
    example = chat.encode(THREAD, tokenizer, template, train_on=train_on)
    assert example["input_ids"] == [tokenizer.bos_token_id, *plain["input_ids"]]
    assert example["labels"] == [chat.IGNORE, *plain["labels"]]
    assert (
        chat.encode(THREAD, tokenizer, template, train_on="all", max_length=9)["input_ids"] == example["input_ids"][:9]
    )


def test_a_start_token_that_the_template_writes_itself_is_not_doubled():
    """SmolLM2's, as older versions of transformers convert it."""
    tokenizer = toy_tokenizer(bos_token="<|im_start|>", eos_token="<|im_end|>", start="<|im_start|>")
    ids = chat.encode(THREAD, tokenizer, "chatml")["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == len(THREAD)
    assert chat.encode(THREAD, tokenizer, "guanaco")["input_ids"].count(tokenizer.bos_token_id) == 1


def test_a_tokenizer_without_an_end_token_is_an_error():
    for use in (chat.encode, chat.render):
        with pytest.raises(ValueError, match="tokenizer.eos_token"):
            use(THREAD, toy_tokenizer(bos_token="<s>"))


def test_chatml_needs_its_end_token():
    tokenizer = toy_tokenizer(eos_token="</s>", special=["</s>"])
    with pytest.raises(ValueError, match="no token of this tokenizer"):
        chat.encode(THREAD, tokenizer, "chatml")


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_keeps_the_beginning_and_leaves_the_tokenizer_alone(tokenizer, side):
    sided = copy.deepcopy(tokenizer)
    sided.truncation_side = sided.padding_side = side
    before = (sided.backend_tokenizer.to_str(), vars(sided).keys())
    whole = chat.encode(THREAD, sided)
    for name, row in chat.encode(THREAD, sided, max_length=15).items():
        assert row == whole[name][:15]
    with pytest.raises(ValueError, match="No token"):
        chat.encode(THREAD, sided, max_length=2)
    assert (sided.truncation_side, sided.padding_side) == (side, side)
    assert (sided.backend_tokenizer.to_str(), vars(sided).keys()) == before
