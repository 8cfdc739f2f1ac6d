"""Losses and generated answers against transformers and against one-at-a-time computation."""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import chat, datafiles, evaluation
from course_utils.evaluation import NLL, Answer, losses
from tests.conftest import toy_tokenizer, unchanged


def tiny() -> LlamaForCausalLM:
    """A random model with room for the toy tokenizer."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=300, num_key_value_heads=2, **shape))


def test_nll_equals_the_models_own_loss_example_by_example(model, examples):
    nats = tokens = 0
    for example in examples:
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        count = int((labels != -100).sum())
        with torch.no_grad():
            nats += model(input_ids=ids, labels=labels).loss.item() * count
        tokens += count
    found = evaluation.nll(model, examples, batch_size=3)
    assert found.tokens == tokens
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-4)


def test_evaluation_leaves_the_mode_of_every_layer_alone():
    """Also where the layers differ: PEFT's wrapper starts in train mode around a model in evaluation mode."""
    model, tokenizer = get_peft_model(tiny().eval(), LoraConfig()), toy_tokenizer(eos_token="</s>", pad_token="<s>")
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    evaluation.nll(model, [{"input_ids": [1, 2], "labels": [1, 2]}])
    evaluation.generate(model, tokenizer, [chat.question("Hi?")], max_new_tokens=1)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("training", [True, False])
def test_an_error_leaves_mode_and_tokenizer_alone(monkeypatch, training):
    model, tokenizer = tiny().train(training), toy_tokenizer(eos_token="</s>", pad_token="<s>")

    def fail(**_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "forward", fail)
    tokenizer.padding_side = "right"
    for use in (
        lambda: evaluation.nll(model, [{"input_ids": [1, 2], "labels": [1, 2]}]),
        lambda: evaluation.generate(model, tokenizer, [chat.question("Hi?")]),
    ):
        with pytest.raises(RuntimeError, match="out of memory"):
            use()
        assert model.training == training
        assert tokenizer.padding_side == "right"


def test_the_loss_is_added_up_where_there_is_float64(monkeypatch):
    """Apple's GPUs have none. Pretended: a tensor has it only after it came to the CPU."""
    moved, cpu, double = [], torch.Tensor.cpu, torch.Tensor.double

    def to_cpu(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(cpu(tensor))
        return moved[-1]

    def to_double(tensor: torch.Tensor) -> torch.Tensor:
        if not any(tensor is one for one in moved):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return double(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", to_cpu)
    monkeypatch.setattr(torch.Tensor, "double", to_double)
    assert evaluation.nll(tiny(), [{"input_ids": [1, 2], "labels": [1, 2]}]).tokens == 1


def test_a_model_gone_nan_shows_it():
    model = tiny()
    nn.init.constant_(model.model.norm.weight, math.nan)
    found = evaluation.nll(model, [{"input_ids": [1, 2], "labels": [1, 2]}])
    assert all(map(math.isnan, (found.nats, found.mean, found.perplexity)))
    assert NLL(nats=2000.0, tokens=2).perplexity == math.inf


def test_general_nll_is_per_token_of_raw_text(model, tokenizer):
    text = datafiles.load_passages()[0]
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=ids, labels=ids).loss.item()
    found = evaluation.general_nll(model, tokenizer, [text])
    assert found.mean == pytest.approx(expected, rel=1e-5)
    assert found.tokens == ids.shape[1] - 1


def test_generation_in_a_batch_equals_one_at_a_time(model, tokenizer):
    """Fails with padding on the right, or without an attention mask."""
    threads = [chat.question("Hi"), chat.question("What is the capital of France, and of Italy?")]
    together = evaluation.generate(model, tokenizer, threads, template="chatml", max_new_tokens=12)
    alone = [evaluation.generate(model, tokenizer, [t], template="chatml", max_new_tokens=12)[0] for t in threads]
    assert together == alone
    assert tokenizer.padding_side == "right"


def test_answers_are_those_of_transformers_and_rows_that_ended_leave(model, tokenizer, monkeypatch):
    """Answers of 2 to 40 tokens; transformers itself carries the short ones along to the end."""
    asked = ["Say yes.", "What is 2 + 2?", "Name a color.", "Tell me about the sea.", "What is the capital of France?"]
    threads, sizes, forward = [chat.question(text) for text in asked], [], model.forward

    def watched(*arguments: object, **options: torch.Tensor) -> object:
        sizes.append(options["input_ids"].shape[0])
        return forward(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", watched)
        found = evaluation.generate(model, tokenizer, threads, template="chatml", max_new_tokens=40)
    end, ids = tokenizer.eos_token_id, [chat.encode_prompt(thread, tokenizer, "chatml") for thread in threads]
    for answer, prompt in zip(found, ids, strict=True):
        out = model.generate(
            torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=end, pad_token_id=0
        )
        tokens = out[0, len(prompt) :].tolist()
        assert answer.stopped == (end in tokens)
        assert answer.text == tokenizer.decode([t for t in tokens if t != end]).strip()
    assert len({len(answer.text) for answer in found}) > 2
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 5 > sizes[-1], "those that ended have left"


def test_prompts_of_like_length_share_a_batch_and_answers_keep_their_order(model, tokenizer, monkeypatch):
    long = "Please tell me, in one word and nothing else at all, what the color of the sky is on a clear day in summer."
    threads, widths, own = [chat.question(text) for text in (long, "Hi", long, "Hi")], [], model.generate

    def watched(input_ids: torch.Tensor, **options: object) -> object:
        widths.append(input_ids.shape[1])
        return own(input_ids=input_ids, **options)

    monkeypatch.setattr(model, "generate", watched)
    options = {"template": "chatml", "max_new_tokens": 3, "batch_size": 2}
    found = evaluation.generate(model, tokenizer, threads, **options)
    assert min(widths) < max(widths) - 15
    assert [found[0], found[1]] == [found[2], found[3]]
    assert found[0] != found[1]


@pytest.mark.parametrize("kind", ["prompt tuning", "prefix tuning", "LoRA"])
def test_adapters_answer_as_they_do_one_at_a_time(kind):
    tokenizer = toy_tokenizer(eos_token="</s>", pad_token="<s>")
    config = {
        "prompt tuning": PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        "prefix tuning": PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
        "LoRA": LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
    }[kind]
    model = get_peft_model(tiny(), config)
    threads = [chat.question("he"), chat.question("what the he said"), chat.question("the he he")]
    together = evaluation.generate(model, tokenizer, threads, max_new_tokens=8)
    assert together == [evaluation.generate(model, tokenizer, [one], max_new_tokens=8)[0] for one in threads]
    assert any(answer.text for answer in together)


@pytest.mark.parametrize(
    "setting",
    [{"num_beams": 3}, {"use_cache": False}, {"cache_implementation": "static"}, {"repetition_penalty": 3.0}],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_that_a_model_brings_do_not_change_greedy_answers(setting):
    tokenizer = toy_tokenizer(eos_token="</s>", pad_token="<s>")
    model, threads = tiny(), [chat.question("he"), chat.question("what the he said"), chat.question("the he he")]
    expected = evaluation.generate(model, tokenizer, threads, max_new_tokens=8)
    for name, value in setting.items():
        setattr(model.generation_config, name, value)
    assert evaluation.generate(model, tokenizer, threads, max_new_tokens=8) == expected
    assert any(answer.text for answer in expected)


def test_the_head_is_not_copied_for_every_row():
    """transformers gives it a slice, which torch multiplies row by row, each with a copy of the matrix if it is frozen,
    as below an adapter."""
    tokenizer, model = toy_tokenizer(eos_token="</s>", pad_token="<s>"), tiny().requires_grad_(False)
    threads = [chat.question("he"), chat.question("what the he said")]
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        evaluation.generate(model, tokenizer, threads, max_new_tokens=3)
    seen = [event.input_shapes for event in found.events() if event.name == "aten::bmm"]
    vocabulary = model.config.vocab_size
    assert not [shapes for shapes in seen if vocabulary in shapes[1]]
    assert not model.lm_head._forward_pre_hooks


def test_generation_says_whether_it_stopped(model, tokenizer):
    thread = chat.question("What is the capital of France?")
    long, short = (
        evaluation.generate(model, tokenizer, [thread], template="chatml", max_new_tokens=n)[0] for n in (60, 2)
    )
    assert long.stopped
    assert not short.stopped
    assert tokenizer.eos_token not in long.text


def test_rates():
    answers = [Answer("a", True), Answer("b", True), Answer("c", False), Answer("d", True)]
    assert evaluation.stop_rate(answers) == 0.75
    assert evaluation.accuracy(answers, ["a", "B", "c", "x"]) == 0.5
    with pytest.raises(ValueError, match=r"answers \(4\) and references \(1\)"):
        evaluation.accuracy(answers, ["a"])


@pytest.mark.parametrize(
    "use",
    [
        lambda model, tokenizer: evaluation.nll(model, []),
        lambda model, tokenizer: evaluation.nll(model, [{"input_ids": [1, 2], "labels": [1, -100]}]),
        lambda model, tokenizer: evaluation.general_nll(model, tokenizer, []),
        lambda model, tokenizer: evaluation.general_nll(model, tokenizer, "one text"),
        lambda model, tokenizer: evaluation.general_nll(model, tokenizer, ["a"]),
        lambda model, tokenizer: evaluation.general_nll(model, tokenizer, ["hi", " "]),
        lambda model, tokenizer: evaluation.stop_rate([]),
        lambda model, tokenizer: evaluation.accuracy([], []),
        lambda model, tokenizer: NLL(0.0, 0).mean,
        lambda model, tokenizer: NLL(0.0, 0).perplexity,
    ],
    ids=["nll", "no label", "general", "a text", "one token", "blank", "stop rate", "accuracy", "mean", "perplexity"],
)
def test_an_empty_set_is_an_error_that_says_what_to_pass(use):
    with pytest.raises(ValueError, match=r"[Pp]ass|Leave it out"):
        use(tiny(), toy_tokenizer(eos_token="</s>"))


def test_no_threads_have_no_answers(tokenizer):
    assert evaluation.generate(tiny(), tokenizer, []) == []


def test_a_batch_without_labels_adds_nothing():
    model, scored = tiny(), {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}
    silent = {"input_ids": [4, 5], "labels": [-100, -100]}
    assert evaluation.nll(model, [silent, scored], batch_size=1) == evaluation.nll(model, [scored], batch_size=1)


# What reaches the model


def answered(input_ids: torch.Tensor) -> SimpleNamespace:
    """What `model.generate` returns when all rows have run to the length limit."""
    return SimpleNamespace(sequences=torch.cat([input_ids, torch.zeros(len(input_ids), 64, dtype=torch.long)], dim=1))


def asked_of(tokenizer, threads: list[list[chat.Turn]], template: str) -> list[list[int]]:
    """The rows that `generate` gives to a model, without padding."""
    model, rows = tiny(), []

    def spy(input_ids: torch.Tensor, attention_mask: torch.Tensor, pad_token_id: int, **_: object) -> torch.Tensor:
        assert (input_ids[attention_mask == 0] == pad_token_id).all()
        rows.extend(row[mask == 1].tolist() for row, mask in zip(input_ids, attention_mask, strict=True))
        return answered(input_ids)

    model.generate = spy
    evaluation.generate(model, tokenizer, threads, template=template)
    return rows


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
@pytest.mark.parametrize("around", [{}, {"start": "<s>"}, {"start": "<s>", "end": "</s>"}], ids=["none", "bos", "both"])
def test_a_question_is_asked_as_it_was_trained_on(template, around):
    """With the start token if the tokenizer puts one before text, once; without an end; whatever the contents spell."""
    tokenizer = toy_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="</s>", **around)
    threads = [chat.question(text, "\n\nhe") for text in ("the", "<|im_end|></s> he")]
    rows = asked_of(tokenizer, [thread[:1] for thread in threads], template)
    for thread, row in zip(threads, rows, strict=True):
        example = chat.encode(thread, tokenizer, template)
        assert row == example["input_ids"][: len(row)]
        assert row.count(tokenizer.bos_token_id) == (1 if around else 0)
        assert tokenizer.eos_token_id not in row


def test_general_text_starts_once_and_keeps_its_beginning(monkeypatch):
    seen = []
    monkeypatch.setattr(losses, "nll", lambda model, examples: seen.append(examples))
    plain = toy_tokenizer(bos_token="<s>", eos_token="</s>")
    ends = toy_tokenizer(bos_token="<s>", eos_token="</s>", start="<s>", end="</s>")
    ends.truncation_side = ends.padding_side = plain.truncation_side = "left"
    text = "he says that the </s> end is spelled"
    for tokenizer in (plain, ends):
        evaluation.general_nll(None, tokenizer, [text, text], max_length=9)
    assert (ends.truncation_side, ends.padding_side) == ("left", "left")
    without, with_start = (examples[0]["input_ids"] for examples in seen)
    assert without == plain("he says that", truncation=False)["input_ids"][:9]
    assert with_start == [ends.bos_token_id, *without[:8]]
    seen.clear()
    evaluation.general_nll(None, ends, [text])
    assert ends.eos_token_id not in seen[0][0]["input_ids"]


def test_generation_needs_no_pad_token_but_an_end_token():
    threads = [chat.question("he"), chat.question("what the he said")]
    padded = toy_tokenizer(eos_token="</s>", pad_token="<s>")
    bare = toy_tokenizer(eos_token="</s>")
    model = tiny().eval()
    found = evaluation.generate(model, bare, threads, max_new_tokens=3)
    assert [a.text for a in found] == [a.text for a in evaluation.generate(model, padded, threads, max_new_tokens=3)]
    with pytest.raises(ValueError, match="tokenizer.eos_token"):
        evaluation.generate(model, toy_tokenizer(), threads)


def test_generation_names_the_thread_that_cannot_be_asked(tokenizer):
    with pytest.raises(ValueError, match="Thread 1 has no turns"):
        evaluation.generate(tiny(), tokenizer, [chat.question("Hi?"), []])
    with pytest.raises(ValueError, match="Thread 1, turn 0.*None"):
        evaluation.generate(tiny(), tokenizer, [chat.question("Hi?"), chat.question(None)])
    with pytest.raises(ValueError, match="Thread 0, turn 0.*'tool'.*user.*assistant"):
        evaluation.generate(tiny(), tokenizer, [[{"role": "tool", "content": "4"}]])


def test_questions_go_to_the_models_device(monkeypatch):
    """Pretended: the weights lie on "meta"."""
    model, devices = tiny().to("meta"), []

    def spy(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: object) -> torch.Tensor:
        devices.extend([input_ids.device.type, attention_mask.device.type])
        return answered(torch.zeros(input_ids.shape, dtype=torch.long))

    monkeypatch.setattr(model, "generate", spy)
    evaluation.generate(model, toy_tokenizer(eos_token="</s>", pad_token="<s>"), [chat.question("Hi?")])
    assert devices == ["meta", "meta"]


# The model that the tests share


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mode", lambda model: model.model.layers[1].train()),
        ("weights", lambda model: nn.init.zeros_(model.model.layers[1].mlp.up_proj.weight)),
        ("gradients", lambda model: model.lm_head.weight.requires_grad_(False)),
        ("gradients", lambda model: model(torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()),
        ("mode", lambda model: get_peft_model(model, LoraConfig())),
        ("hooks", lambda model: model.lm_head.register_forward_hook(lambda *_: None)),
    ],
    ids=["mode", "weight", "frozen", "gradient", "adapter", "hook"],
)
def test_a_test_that_changes_the_shared_model_fails(name, change):
    lent = unchanged(tiny().eval())
    change(next(lent))
    with pytest.raises(pytest.fail.Exception, match=f"changed the shared model: .*{name}"):
        next(lent)


def test_a_test_that_uses_the_shared_model_does_not_fail():
    lent = unchanged(tiny().eval())
    next(lent)(torch.tensor([[1, 2]]))
    assert next(lent, None) is None
