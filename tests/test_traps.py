"""`training.check`: each trap is planted, with tiny tokenizers, and exactly this one is found; clean data has none."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, TrainingArguments, get_scheduler
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling as TrlCollator

from course_utils import batches, chat, datafiles, training
from course_utils.training import Recipe
from course_utils.training.traps import WAYS_OUT
from tests.conftest import toy_tokenizer

TOY = toy_tokenizer(start="<s>", bos_token="<s>", eos_token="</s>", pad_token="<|im_start|>")
CHATML = toy_tokenizer(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="</s>")
THREADS = [
    [*chat.question("hello", "there"), *chat.question("more: ## the", "he said: the end")],
    chat.question("one", "two"),
]
TEMPLATES = [("guanaco", TOY), ("chatml", CHATML)]
RECIPE = Recipe(lr=1e-3, steps=100)


def names(found: Sequence[training.Finding]) -> list[str]:
    return [finding.name for finding in found]


def encoded(tokenizer=TOY, template: str = "guanaco", **options) -> list[chat.Example]:
    return [chat.encode(thread, tokenizer, template, **options) for thread in THREADS]


def as_rows(texts: Sequence[str], tokenizer, **options) -> list[chat.Example]:
    """What a pipeline of one's own might do: the whole text tokenized at once, and all of it labeled."""
    rows = [tokenizer(text, **options)["input_ids"] for text in texts]
    return [{"input_ids": ids, "labels": list(ids)} for ids in rows]


@pytest.mark.parametrize(("template", "tokenizer"), TEMPLATES)
@pytest.mark.parametrize("train_on", ["answers", "all"])
def test_clean_data_has_no_trap(template, tokenizer, train_on):
    assert training.check(THREADS, tokenizer, template) == []
    assert training.check([{"messages": thread} for thread in THREADS], tokenizer, template) == []
    rows = encoded(tokenizer, template, train_on=train_on)
    warm = replace(RECIPE, schedule="constant_with_warmup", warmup_steps=5)
    prompts = batches.collate_prompts([row["input_ids"] for row in rows], 0)
    assert training.check(rows, tokenizer, template, args=warm, prompts=prompts) == []
    assert training.check(rows, tokenizer, template, collator=TrlCollator(pad_token_id=0)) == []


@pytest.mark.parametrize("template", ["guanaco", "chatml"])
def test_the_course_s_own_conversations_have_no_trap(tokenizer, template):
    """With the default tokenizer, whose pad token is its end token, and which pads on the right: no harm is done."""
    assert tokenizer.pad_token == tokenizer.eos_token
    threads = [chat.top_thread(tree) for tree in datafiles.load_conversations(split="validation")]
    assert training.check(threads, tokenizer, template) == []
    assert training.check(chat.encode_all(threads, tokenizer, template), tokenizer, template) == []


@pytest.mark.parametrize(("template", "tokenizer"), TEMPLATES)
def test_a_pad_token_that_is_the_end_token_masks_every_end(template, tokenizer):
    """M11: transformers' collator for language models decides padding by the token. With another pad it does no harm"""
    end = chat.end_id(tokenizer, template)
    same = toy_tokenizer(bos_token=tokenizer.bos_token, eos_token=tokenizer.eos_token)
    same.pad_token = same.convert_ids_to_tokens(end)
    rows = [{"input_ids": row["input_ids"]} for row in encoded(tokenizer, template)]
    found = training.check(rows, same, template, collator=DataCollatorForLanguageModeling(same, mlm=False))
    assert names(found) == ["end_masked"]
    assert found[0].where == "2 of 2 rows, the first is 0"
    usual = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    assert training.check(rows, tokenizer, template, collator=usual) == []


@pytest.mark.parametrize(("template", "tokenizer"), TEMPLATES)
def test_a_mask_that_is_one_token_short_masks_the_end(template, tokenizer):
    rows = encoded(tokenizer, template)
    end = chat.end_id(tokenizer, template)
    for row in rows:
        pairs = zip(row["input_ids"], row["labels"], strict=True)
        row["labels"] = [-100 if token == end else label for token, label in pairs]
    assert names(training.check(rows, tokenizer, template)) == ["end_masked"]


def test_a_template_and_a_tokenizer_that_both_begin_begin_twice():
    """M13: the text has its <s>, and the tokenizer puts one before it."""
    texts = ["<s>" + chat.render(thread, TOY) for thread in THREADS]
    assert names(training.check(as_rows(texts, TOY), TOY)) == ["double_bos"]
    assert training.check(as_rows(texts, TOY, add_special_tokens=False), TOY) == []


@pytest.mark.parametrize(("template", "tokenizer"), TEMPLATES)
def test_rows_without_a_label_are_found(template, tokenizer):
    rows = encoded(tokenizer, template)
    rows[1]["labels"] = [-100] * len(rows[1]["labels"])
    found = training.check(rows, tokenizer, template)
    assert names(found) == ["nothing_to_learn"]
    assert found[0].where == "1 of 2 rows, the first is 1"
    assert names(training.check([THREADS[0], THREADS[1][:1]], tokenizer, template)) == ["nothing_to_learn"]


def test_a_row_that_is_no_conversation_or_has_no_labels_is_named(tokenizer):
    with pytest.raises(ValueError, match="Row 1: no conversation in a known shape"):
        training.check([THREADS[0], {"text": "Hi?"}], tokenizer)
    with pytest.raises(ValueError, match="Row 0 has input_ids and no labels"):
        training.check([{"input_ids": [1, 2]}], tokenizer)


@pytest.mark.parametrize(("template", "tokenizer"), TEMPLATES)
@pytest.mark.parametrize("train_on", ["answers", "all"])
def test_an_answer_that_was_cut_has_no_end(template, tokenizer, train_on):
    whole = len(chat.encode(THREADS[0], tokenizer, template)["input_ids"])
    for lost in range(2, 8):
        rows = encoded(tokenizer, template, train_on=train_on, max_length=whole - lost)
        found = training.check(rows, tokenizer, template)
        assert names(found) == ["end_cut_off"], lost
        assert found[0].where == "1 of 2 rows, the first is 0"


@pytest.mark.parametrize(("template", "tokenizer"), TEMPLATES)
def test_a_cut_in_a_question_loses_no_end(template, tokenizer):
    """At every place: an end is lost exactly where the cut lies between an answer's head and its end."""
    thread = THREADS[0]
    whole = chat.encode(thread, tokenizer, template)
    asked = len(chat.encode_prompt(thread[:3], tokenizer, template))
    answered = [i for i, token in enumerate(whole["input_ids"]) if token == chat.end_id(tokenizer, template)]
    first_answer = len(chat.encode_prompt(thread[:1], tokenizer, template)), answered[-4 if template == "chatml" else 0]
    ends = {"chatml": answered[1], "guanaco": answered[0]}[template]
    for length in range(first_answer[0] + 1, len(whole["input_ids"])):
        row = {name: values[:length] for name, values in whole.items()}
        lost = length <= ends or asked <= length <= answered[-1]
        assert names(training.check([row], tokenizer, template)) == ["end_cut_off"] * lost, length


@pytest.mark.parametrize(("template", "tokenizer"), TEMPLATES)
def test_a_text_of_another_template_is_found(template, tokenizer):
    """M12: encoded in one template, and asked in the other."""
    both = toy_tokenizer(eos_token="<|im_end|>", pad_token="</s>")
    other = {"guanaco": "chatml", "chatml": "guanaco"}[template]
    assert names(training.check(encoded(both, other), both, template)) == ["template_mismatch"]


@pytest.mark.parametrize(("template", "tokenizer"), TEMPLATES)
@pytest.mark.parametrize("text", ["What does {} do?", "{}", "ends so {}", "{} starts so", "twice {}{}"])
def test_a_special_token_in_a_text_is_found(template, tokenizer, text):
    """In threads, and in rows that a plain tokenizer made of them, where it is a token; encode takes it apart."""
    for spelled in ("</s>", "<|im_end|>", "<|im_start|>"):
        content = text.format(spelled, spelled)
        thread = chat.question("one", content)
        assert names(training.check([*THREADS, thread], tokenizer, template)) == ["special_token_in_text"]
        rows = as_rows([chat.render(thread, tokenizer, template)], tokenizer)
        assert "special_token_in_text" in names(training.check(rows, tokenizer, template)), content
        assert training.check([chat.encode(thread, tokenizer, template)], tokenizer, template) == []


def test_a_special_token_in_the_middle_is_all_that_is_found():
    thread = chat.question("What does <|im_start|> do?", "It starts.")
    rows = as_rows([chat.render(thread, CHATML, "chatml")], CHATML)
    assert names(training.check(rows, CHATML, "chatml")) == ["special_token_in_text"]


ARGUMENTS = {"output_dir": "unused", "report_to": "none", "use_cpu": True, "per_device_train_batch_size": 2}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"lr_scheduler_type": "constant", "warmup_steps": 0.03, "max_steps": 1875}, "57 steps of warm-up, and the"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 10, "max_steps": 100}, "10 steps of warm-up, and the"),
        ({"lr_scheduler_type": "linear", "warmup_steps": 3, "num_train_epochs": 3}, "3 steps of warm-up in a run of 3"),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 20, "max_steps": 20}, "20 steps of warm-up in a run of 20"),
    ],
    ids=str,
)
def test_a_warmup_that_never_warms_is_found(options, where):
    """M15: Guanaco's scripts asked for 3 % of warm-up with a constant schedule."""
    found = training.check(encoded(), TOY, args=TrainingArguments(**ARGUMENTS, **options))
    assert names(found) == ["warmup_never_warms"]
    assert found[0].where.startswith(where)


@pytest.mark.parametrize(
    "options",
    [
        {"lr_scheduler_type": "constant", "max_steps": 100},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 10, "max_steps": 100},
        {"lr_scheduler_type": "cosine", "warmup_steps": 0.1, "max_steps": 100},
        {"lr_scheduler_type": "linear", "warmup_steps": 2, "num_train_epochs": 3},
    ],
    ids=str,
)
def test_a_warmup_that_warms_is_none_and_the_schedule_agrees(options):
    args = TrainingArguments(**ARGUMENTS, **options)
    assert training.check(encoded(), TOY, args=args) == []
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    total = 100 if "max_steps" in options else 3
    rates = get_scheduler(args.lr_scheduler_type, optimizer, args.get_warmup_steps(total), total)
    seen = []
    for _ in range(total):
        seen.append(rates.get_last_lr()[0])
        optimizer.step()
        rates.step()
    assert max(seen) == 1.0


def test_a_recipe_s_warmup_is_looked_at():
    warm = replace(RECIPE, schedule="linear", warmup_steps=100)
    assert names(training.check(encoded(), TOY, args=warm)) == ["warmup_never_warms"]


def test_prompts_padded_on_the_right_are_found():
    tokenizer = toy_tokenizer(eos_token="</s>", pad_token="</s>")
    texts = [chat.render(chat.question(text), tokenizer, ask=True) for text in ("one", "a longer one")]
    for side, expected in (("right", ["padding_side"]), ("left", [])):
        tokenizer.padding_side = side
        prompts = tokenizer(texts, padding=True, return_tensors="pt")
        assert names(training.check(encoded(tokenizer), tokenizer, prompts=prompts)) == expected


def test_every_trap_says_its_way_out():
    tokenizer = toy_tokenizer(eos_token="</s>", pad_token="</s>", padding_side="right")
    rows = [{"input_ids": [3, 4, 5], "labels": [-100] * 3}]
    found = training.check(rows, tokenizer)
    assert names(found) == ["nothing_to_learn", "template_mismatch"]
    assert str(found[0]) == f"nothing_to_learn, 1 of 1 rows, the first is 0: {WAYS_OUT['nothing_to_learn']}"
    assert all(". " in text for text in WAYS_OUT.values()), "what it does, and the way out"


@pytest.mark.parametrize(
    ("dataset", "template", "words"),
    [
        ([], "guanaco", "The list of examples is empty"),
        (THREADS, "alpaca", "Unknown template 'alpaca'"),
        ([THREADS[0], [{"role": "user", "content": " "}]], "guanaco", "Thread 1, turn 0.*is blank"),
        ([{"text": "..."}], "guanaco", "no conversation in a known shape, but the fields text"),
    ],
    ids=["empty", "template", "blank", "row"],
)
def test_what_cannot_be_checked_is_named(dataset, template, words):
    with pytest.raises(ValueError, match=words):
        training.check(dataset, TOY, template)


def test_nothing_is_changed():
    rows = encoded()
    before = [{name: list(values) for name, values in row.items()} for row in rows]
    training.check(rows, TOY, collator=TrlCollator(pad_token_id=0))
    assert rows == before
