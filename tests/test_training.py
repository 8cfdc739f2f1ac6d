"""The plain loop, against PyTorch written out."""

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.optim.optimizer import register_optimizer_step_pre_hook

from course_utils import batches, training
from course_utils.training import Recipe, loop
from tests.conftest import made_examples, tiny


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


def test_a_run_of_no_steps_has_no_speed():
    assert training.History().tokens_per_second == 0


@pytest.mark.parametrize("accumulation", [1, 3])
def test_grouped_steps_weigh_every_token_alike(monkeypatch, accumulation):
    """Steps without a memory that are too small to feel each other add up to one step on everything."""
    one, examples = tiny(), made_examples(24)
    many = copy.deepcopy(one)
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)
    steps = 12 // accumulation
    whole = Recipe(steps=1, lr=1e-3 * steps, batch_size=24, max_grad_norm=0)
    training.fit(one, examples, whole)
    grouped = Recipe(steps=steps, lr=1e-3, batch_size=2, accumulation=accumulation, max_grad_norm=0)
    start = {name: p.detach().clone() for name, p in many.named_parameters()}
    training.fit(many, examples, replace(grouped, batch_order="group_by_length"))
    apart, moved = (
        torch.cat([(new - old).flatten() for new, old in zip(ours, others, strict=True)]).norm()
        for ours, others in ((many.parameters(), one.parameters()), (one.parameters(), start.values()))
    )
    assert apart < 0.02 * moved
