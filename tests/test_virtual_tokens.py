"""Prompt tuning and its kin: a batch is scored, trained and answered as one row at a time is, written out by hand."""

import warnings
from dataclasses import replace

import pytest
import torch
from peft import get_peft_config, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from course_utils import chat, evaluation, training
from course_utils.batches import batches, collate, collate_prompts, token_losses
from course_utils.training import Recipe
from tests.conftest import made_examples, tiny, toy_tokenizer

VIRTUAL = 5
COMMON = {"task_type": "CAUSAL_LM", "num_virtual_tokens": VIRTUAL}
ADAPTERS = {
    "prompt tuning": {**COMMON, "peft_type": "PROMPT_TUNING", "prompt_tuning_init": "SAMPLE_VOCAB"},
    "P-tuning": {**COMMON, "peft_type": "P_TUNING", "encoder_hidden_size": 16},
    "prefix tuning": {**COMMON, "peft_type": "PREFIX_TUNING"},
}
RECIPE = Recipe(steps=3, lr=1e-2, batch_size=4)


@pytest.fixture(params=ADAPTERS)
def adapted(request):
    base = tiny(512)
    for name, weight in base.named_parameters():
        if name.endswith("_proj.weight"):
            weight.data *= 10  # else attention would be nearly even, and no place matter
    torch.manual_seed(1)
    return get_peft_model(base, get_peft_config(dict(ADAPTERS[request.param]))).eval()


def logits(model, ids):
    """Of one row alone: what its virtual tokens and its tokens make the base model say; by hand, without a mask."""
    base, row = model.get_base_model(), torch.tensor([ids])
    table = model.prompt_encoder["default"]
    tokens = torch.arange(VIRTUAL)[None]
    if model.active_peft_config.peft_type != "PREFIX_TUNING":
        embedded = torch.cat([table(tokens), base.get_input_embeddings()(row)], dim=1)
        return base(inputs_embeds=embedded).logits[0, VIRTUAL:]
    cache, shape = DynamicCache(), base.config
    size = shape.hidden_size // shape.num_attention_heads
    stacked = table(tokens).view(VIRTUAL, 2 * shape.num_hidden_layers, shape.num_key_value_heads, size)
    for layer in range(shape.num_hidden_layers):
        key, value = (stacked[:, 2 * layer + which].transpose(0, 1)[None] for which in (0, 1))
        cache.update(key, value, layer)
    return base(row, past_key_values=cache, use_cache=True).logits[0]


def by_hand(model, example):
    """The losses of the labeled tokens of one example."""
    targets = torch.tensor(example["labels"][1:])
    return cross_entropy(logits(model, example["input_ids"])[:-1], targets, reduction="none", ignore_index=-100)[
        targets != -100
    ]


def test_the_loss_of_a_padded_batch_is_that_of_its_rows_and_of_pefts_own_forward(adapted):
    examples = made_examples(6)
    wanted = torch.cat([by_hand(adapted, example) for example in examples])
    batch = collate(examples)
    torch.testing.assert_close(token_losses(adapted, batch), wanted, rtol=1e-4, atol=1e-5)
    assert adapted(**batch).loss.item() == pytest.approx(wanted.mean().item(), rel=1e-4)
    assert evaluation.nll(adapted, examples).nats == pytest.approx(wanted.sum().item(), rel=1e-4)


def test_the_drift_from_the_base_is_that_of_its_rows(adapted):
    examples = made_examples(6)
    with adapted.disable_adapter():
        before = evaluation.predictions(adapted, examples)
    drift = evaluation.drift(adapted, before)
    for row, example in zip(drift.itertuples(), examples, strict=True):
        labeled = torch.tensor([label != -100 for label in example["labels"][1:]])
        old = adapted.get_base_model()(torch.tensor([example["input_ids"]])).logits[0, :-1][labeled].log_softmax(dim=1)
        new = logits(adapted, example["input_ids"])[:-1][labeled].log_softmax(dim=1)
        assert row.kl == pytest.approx((old.exp() * (old - new)).sum().item(), rel=1e-3)
        assert row.nats == pytest.approx(by_hand(adapted, example).sum().item(), rel=1e-4)


def test_the_loop_takes_the_steps_of_one_written_out(adapted):
    examples, recipe = made_examples(8), replace(RECIPE, seed=3)
    start = {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}
    history = training.fit(adapted, examples, recipe)
    trained = {name: p.detach().clone() for name, p in adapted.named_parameters() if p.requires_grad}
    adapted.load_state_dict(start, strict=False)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=recipe.lr, weight_decay=0)
    source = batches(examples, recipe.batch_size, recipe.seed, recipe.batch_order)
    losses = []
    for _ in range(recipe.steps):
        loss = torch.cat([by_hand(adapted, example) for example in next(source)]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(start and [p for p in adapted.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert history.losses == pytest.approx(losses, rel=1e-3)
    moved = {name: (p - start[name]).norm() for name, p in trained.items()}
    assert all(norm > 0 for norm in moved.values())
    for name, p in adapted.named_parameters():
        if name in trained:
            assert (p - trained[name]).norm() < 0.02 * moved[name]


def test_answers_to_prompts_of_different_lengths_are_those_of_each_prompt_alone(adapted):
    """In a batch, padding would stand between the virtual tokens and the prompt."""
    tokenizer = toy_tokenizer(eos_token="</s>", pad_token="</s>")
    threads = [chat.question("tell " * n + "me") for n in (1, 2, 5, 9)]
    answers = evaluation.generate(adapted, tokenizer, threads, max_new_tokens=6)
    for thread, answer in zip(threads, answers, strict=True):
        ids = chat.encode_prompt(thread, tokenizer)
        start = len(ids)
        while len(ids) < start + 6 and ids[-1] != tokenizer.eos_token_id:
            ids.append(logits(adapted, ids)[-1].argmax().item())
        assert answer.text == tokenizer.decode([i for i in ids[start:] if i != tokenizer.eos_token_id]).strip()


def test_peft_warns_of_positions_where_there_may_be_padding_and_not_where_there_is_none(adapted):
    """Virtual tokens in the input make PEFT leave positions out: wrong behind padding, nothing where there is none."""
    tokenizer = toy_tokenizer(eos_token="</s>", pad_token="</s>")
    prompts = [chat.encode_prompt(chat.question("tell " * n + "me"), tokenizer) for n in (1, 2)]
    padded = collate_prompts(prompts, tokenizer.pad_token_id)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        evaluation.generate(adapted, tokenizer, [chat.question("tell me")], max_new_tokens=2)
        silent = not any("Position ids" in str(each.message) for each in seen)
        adapted.generate(**padded, max_new_tokens=2, pad_token_id=tokenizer.pad_token_id)
    in_the_input = adapted.active_peft_config.peft_type != "PREFIX_TUNING"
    assert silent
    assert any("Position ids" in str(each.message) for each in seen) == in_the_input
