"""The loss and the plain loop, against transformers and PyTorch written out."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import batches, chat, training
from course_utils.training import Recipe, loop


def tiny(vocab_size: int = 64) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, num_key_value_heads=2, pad_token_id=0, **shape))


def made_examples(count: int = 12) -> list[chat.Example]:
    """Examples of different lengths, the first third of each masked."""
    rows = [torch.randint(3, 64, (6 + n,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(count)]
    return [{"input_ids": row, "labels": [-100] * (len(row) // 3) + row[len(row) // 3 :]} for row in rows]


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


def test_fit_equals_a_loop_written_out():
    ours, examples = tiny(), made_examples()
    plain = copy.deepcopy(ours)
    losses = training.fit(ours, examples, Recipe(steps=5, lr=1e-2, batch_size=4, seed=3)).losses
    optimizer, expected = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.0), []
    source = batches.batches(examples, 4, seed=3)
    for _ in range(5):
        loss = plain(**batches.collate(next(source))).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-4)


def test_batches_show_every_example_once_per_pass_in_a_seeded_order():
    source, again = (batches.batches(list(range(8)), 4, seed=1) for _ in range(2))
    first_pass = [*next(source), *next(source)]
    assert sorted(first_pass) == list(range(8))
    assert first_pass == [*next(again), *next(again)]
    assert first_pass != [*next(source), *next(source)]


def test_fit_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="No parameter requires a gradient"):
        training.fit(tiny().requires_grad_(False), made_examples(), Recipe(steps=1, lr=1e-3))
    with pytest.raises(ValueError, match="do not fill one batch of 99"):
        training.fit(tiny(), made_examples(), Recipe(steps=1, lr=1e-3, batch_size=99))


def test_gradients_do_not_vanish_in_a_float16_base(model, examples):
    """Gradients that run back through float16 vanish unless the loss is scaled: each must keep its direction."""

    def first_gradients(base: torch.nn.Module) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        tuned = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "k_proj"]))
        found: dict[str, torch.Tensor] = {}

        def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
            found.update({name: p.grad.flatten() for name, p in tuned.named_parameters() if "lora_B" in name})

        hook = register_optimizer_step_pre_hook(keep)
        training.fit(tuned, examples, Recipe(steps=1, lr=1e-5, max_grad_norm=1e9))
        hook.remove()
        return found

    exact, halved = (first_gradients(copy.deepcopy(model).to(kind)) for kind in (torch.float32, torch.float16))
    assert len(exact) == 60
    cosines = [torch.cosine_similarity(exact[name], halved[name], dim=0) for name in exact]
    assert min(cosines) > 0.9995  # 0.998 without the scale


def test_fit_refuses_to_train_float16_weights():
    """AdamW in float16 gives nan at the second step, in silence."""
    with pytest.raises(ValueError, match="float16 cannot be trained.*precision='fp32' or 'bf16'"):
        training.fit(tiny().half(), made_examples(), Recipe(steps=3, lr=1e-3))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_at_its_step(monkeypatch, value):
    model, whole, calls = tiny(), batches.supervised_loss, []

    def breaks_at_the_third(*inputs: object) -> torch.Tensor:
        calls.append(1)
        return whole(*inputs) * (value if len(calls) == 3 else 1.0)

    monkeypatch.setattr(loop, "supervised_loss", breaks_at_the_third)
    with pytest.raises(FloatingPointError, match=rf"The loss at step 3 is {value}.*learning rate below 0\.01"):
        training.fit(model, made_examples(), Recipe(steps=5, lr=1e-2, batch_size=4))
    assert all(p.isfinite().all() for p in model.parameters())


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
    assert training.History().tokens_per_second == 0


class Elsewhere(torch.nn.Module):
    """Pretends to lie on another device, and answers like a model there; the answer comes back to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

    def forward(self, logits_to_keep: torch.Tensor, **inputs: torch.Tensor) -> SimpleNamespace:
        where = {tensor.device.type for tensor in inputs.values() if isinstance(tensor, torch.Tensor)}
        assert where | {logits_to_keep.device.type} == {"meta"}
        return SimpleNamespace(logits=torch.zeros(4, len(logits_to_keep), 64))


def test_batches_go_to_where_the_model_lies():
    """The notebooks collate on the CPU, whatever the model lies on."""
    losses = batches.token_losses(Elsewhere(), batches.collate(made_examples(4)))
    assert losses.mean().item() == pytest.approx(math.log(64))
