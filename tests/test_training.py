"""The loss, the loop and the trainer, against transformers, plain PyTorch and each other."""

import copy

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import chat, training


def tiny(vocab_size: int = 64) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, num_key_value_heads=2, pad_token_id=0, **shape))


def made_examples(count: int = 12) -> list[chat.Example]:
    """Examples of different lengths, the first third of each masked."""
    rows = [torch.randint(3, 64, (6 + n,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(count)]
    return [{"input_ids": row, "labels": [-100] * (len(row) // 3) + row[len(row) // 3 :]} for row in rows]


def test_collate_pads_by_length_not_by_token():
    batch = training.collate([{"input_ids": [5, 0, 2], "labels": [-100, 0, 2]}, {"input_ids": [7], "labels": [7]}], 2)
    assert batch["input_ids"].tolist() == [[5, 0, 2], [7, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 0, 2], [7, -100, -100]]


def test_loss_equals_the_models_own(model, examples):
    batch = training.collate(examples)
    with torch.no_grad():
        assert training.supervised_loss(model, batch).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def test_loss_equals_a_sum_over_single_examples():
    """Padding and batching change nothing: the batch loss is the mean over all supervised tokens."""
    model, examples = tiny(), made_examples()
    losses = torch.cat([training.token_losses(model, training.collate([example])) for example in examples])
    together = training.supervised_loss(model, training.collate(examples))
    assert together.item() == pytest.approx(losses.mean().item(), rel=1e-5)
    assert losses.numel() == sum(label != -100 for e in examples for label in e["labels"][1:])


def test_loss_with_virtual_tokens_equals_pefts():
    model = get_peft_model(tiny(), PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"))
    batch = training.collate(made_examples(4))
    assert training.supervised_loss(model, batch).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def test_fit_equals_a_loop_written_out():
    ours, examples = tiny(), made_examples()
    plain = copy.deepcopy(ours)
    losses = training.fit(ours, examples, steps=5, lr=1e-2, batch_size=4, seed=3).losses
    optimizer, expected = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.0), []
    source = training.batches(examples, 4, seed=3)
    for _ in range(5):
        loss = plain(**training.collate(next(source))).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-4)


def test_batches_show_every_example_once_per_pass_in_a_seeded_order():
    source, again = (training.batches(list(range(8)), 4, seed=1) for _ in range(2))
    first_pass = [*next(source), *next(source)]
    assert sorted(first_pass) == list(range(8))
    assert first_pass == [*next(again), *next(again)]
    assert first_pass != [*next(source), *next(source)]


def test_fit_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="No parameter requires a gradient"):
        training.fit(tiny().requires_grad_(False), made_examples(), steps=1, lr=1e-3)
    with pytest.raises(ValueError, match="do not fill one batch of 99"):
        training.fit(tiny(), made_examples(), steps=1, lr=1e-3, batch_size=99)


def sft(tokenizer, folder, model=None, **options):
    settings = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "max_steps": 6, **options}
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    return training.sft_trainer(
        model or tiny(49152), tokenizer, made_examples(), folder, peft_config=config, **settings
    )


def test_trainer_scores_only_supervised_tokens(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, dict(batch))
    expected = trainer.model(**{k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "labels")}).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (batch["labels"] == -100).any()


def test_trainer_learns_and_trains_adapters_in_fp32(tokenizer, tmp_path):
    trainer = sft(tokenizer, tmp_path, max_steps=12)
    history = training.run(trainer)
    assert len(history.losses) == 12
    assert history.losses[-1] < history.losses[0]
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}


def test_interrupted_training_resumes_where_it_stopped(tokenizer, tmp_path):
    """Six steps in one go equal three steps, a stop, and three more."""
    saving = {"save_strategy": "steps", "save_steps": 3}
    whole = training.run(sft(tokenizer, tmp_path / "whole", **saving)).losses
    first = training.run(sft(tokenizer, tmp_path / "parts", **{**saving, "max_steps": 3})).losses
    both = training.run(sft(tokenizer, tmp_path / "parts", **saving)).losses
    assert first == pytest.approx(whole[:3], rel=1e-5)
    assert both == pytest.approx(whole, rel=1e-5)
