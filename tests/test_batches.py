"""Batches, padding and the loss, against transformers, PEFT and sums by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from course_utils import batches
from tests.conftest import made_examples, tiny


def test_collate_pads_by_length_not_by_token():
    batch = batches.collate([{"input_ids": [5, 0, 2], "labels": [-100, 0, 2]}, {"input_ids": [7], "labels": [7]}], 2)
    assert batch["input_ids"].tolist() == [[5, 0, 2], [7, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 0, 2], [7, -100, -100]]


def test_loss_equals_the_models_own(model, examples):
    batch = batches.collate(examples)
    with torch.no_grad():
        assert batches.supervised_loss(model, batch).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def test_loss_equals_a_sum_over_single_examples():
    """Padding and batching change nothing: the batch loss is the mean over all supervised tokens."""
    model, examples = tiny(), made_examples()
    losses = torch.cat([batches.token_losses(model, batches.collate([example])) for example in examples])
    together = batches.supervised_loss(model, batches.collate(examples))
    assert together.item() == pytest.approx(losses.mean().item(), rel=1e-5)
    assert losses.numel() == sum(label != -100 for e in examples for label in e["labels"][1:])


def test_loss_with_virtual_tokens_equals_pefts():
    model = get_peft_model(tiny(), PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"))
    batch = batches.collate(made_examples(4))
    assert batches.supervised_loss(model, batch).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SHAPE |= {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DEEPER = {"num_key_value_heads": 2, "head_dim": 8}
ARCHITECTURES = {  # every one as small as its own configuration allows; what differs is how it makes its logits
    "bloom": {"n_layer": 2, "n_head": 4},
    "codegen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_ctx": 64, "n_positions": 64},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3, **DEEPER},
    "falcon": {},
    "gemma": DEEPER,
    "gemma2": {"final_logit_softcapping": 0.5, **DEEPER},
    "gemma3_text": {"final_logit_softcapping": 0.5, **DEEPER},
    "glm": {"num_key_value_heads": 2, "head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
    "granite": {"logits_scaling": 3.0, **DEEPER},
    "granitemoe": {"logits_scaling": 3.0, "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1},
    "llama": DEEPER,
    "mistral": DEEPER,
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 2},
    "nemotron": DEEPER,
    "olmo": {"num_key_value_heads": 2},
    "olmo2": {"num_key_value_heads": 2},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "phi": {},
    "phi3": {"num_key_value_heads": 2},
    "qwen2": DEEPER,
    "qwen3": DEEPER,
    "smollm3": DEEPER,
    "stablelm": {"num_key_value_heads": 4},
    "starcoder2": {"num_key_value_heads": 2},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_equals_the_models_own_on_every_architecture(architecture):
    """Soft-capped and scaled logits, tied heads, heads behind a projection: the model's own code makes them."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**SHAPE, **ARCHITECTURES[architecture]})
    model, batch = AutoModelForCausalLM.from_config(config).eval(), batches.collate(made_examples(4))
    rows = []
    model.get_output_embeddings().register_forward_hook(lambda *call: rows.append(call[-1].shape[:-1].numel()))
    found = batches.supervised_loss(model, batch)
    assert rows == [int((batch["labels"][:, 1:] != -100).sum())], "the head saw more than the supervised positions"
    assert found.item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    assert rows[1:] == [batch["labels"].numel()], "the head is left as it was"


def test_a_model_that_names_no_head_is_scored_all_the_same():
    class Nameless(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny()

        def forward(self, **inputs: torch.Tensor) -> object:
            return self.inner(**inputs)

    batch = batches.collate(made_examples(4))
    assert batches.supervised_loss(Nameless(), batch).item() == pytest.approx(tiny()(**batch).loss.item(), rel=1e-5)


def test_an_adapter_on_the_head_learns():
    model = get_peft_model(
        tiny(), LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM", init_lora_weights=False)
    )
    batch, gradients = batches.collate(made_examples(4)), []
    for loss in (lambda: batches.supervised_loss(model, batch), lambda: model(**batch).loss):
        model.zero_grad()
        loss().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for ours, own in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, own)


def test_batches_show_every_example_once_per_pass_in_a_seeded_order():
    examples = made_examples(8)
    source, again = (batches.batches(examples, 4, seed=1) for _ in range(2))
    first_pass = [*next(source), *next(source)]
    assert sorted(first_pass, key=examples.index) == examples
    assert first_pass == [*next(again), *next(again)]
    assert first_pass != [*next(source), *next(source)]


def test_without_a_supervised_token_there_is_no_mean():
    masked = [{"input_ids": [5, 6, 7], "labels": [-100, -100, -100]}]
    with pytest.raises(ValueError, match="All labels of this batch are -100"):
        batches.supervised_loss(tiny(), batches.collate(masked))
    assert batches.supervised_loss(tiny(), batches.collate(masked), num_items=7) == 0  # a share of a larger batch
    with pytest.raises(ValueError, match="All labels of this batch are -100"):
        batches.supervised_loss(tiny(), batches.collate(masked), num_items=torch.tensor(0))


def test_empty_sets_say_what_to_look_at():
    with pytest.raises(ValueError, match="The list of examples is empty"):
        batches.collate([])
    with pytest.raises(ValueError, match="0 examples do not fill one batch of 4"):
        batches.batches([], 4, seed=0)  # at once, not at the first batch
    with pytest.raises(ValueError, match="batch_size is 0"):
        batches.batches(made_examples(), 0, seed=0)


class Elsewhere(torch.nn.Module):
    """Pretends to lie on another device, and answers like a model there; the answer comes back to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, input_ids: torch.Tensor, **inputs: torch.Tensor) -> SimpleNamespace:
        assert {input_ids.device.type, inputs["attention_mask"].device.type} == {"meta"}
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 64))


def test_batches_go_to_where_the_model_lies():
    """The notebooks collate on the CPU, whatever the model lies on."""
    losses = batches.token_losses(Elsewhere(), batches.collate(made_examples(4)))
    assert losses.mean().item() == pytest.approx(math.log(64))


def test_prompts_are_padded_on_the_left():
    batch = batches.collate_prompts([[5, 6, 7], [8]], pad_token_id=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [2, 2, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_sequential_order_is_that_of_the_examples_in_every_pass():
    examples = made_examples(7)
    source = batches.batches(examples, 3, seed=5, order="sequential")
    assert [next(source) for _ in range(3)] == [examples[:3], examples[3:6], examples[:3]]


def test_a_grouped_order_has_like_lengths_in_a_batch_and_every_example_once_a_pass():
    examples = made_examples(97)
    lengths = {id(one): len(one["input_ids"]) for one in examples}
    source, again = (batches.batches(examples, 4, seed=3, order="group_by_length") for _ in range(2))
    passes = [[next(source) for _ in range(24)] for _ in range(2)]
    for one in passes:
        assert len({id(example) for batch in one for example in batch}) == 96
    assert passes[0] == [next(again) for _ in range(24)], "the seed fixes the order"
    assert passes[0] != passes[1], "another order in each pass"
    assert not {frozenset(map(id, batch)) for batch in passes[0]} & {frozenset(map(id, b)) for b in passes[1]}
    spread = [max(lengths[id(e)] for e in batch) - min(lengths[id(e)] for e in batch) for batch in passes[0]]
    assert max(spread) < 20, "neighbors in length"
    longest = [max(lengths[id(e)] for e in batch) for batch in passes[0]]
    assert longest not in (sorted(longest), sorted(longest, reverse=True)), "short and long batches alternate"
