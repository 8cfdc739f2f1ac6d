"""All of a recipe is obeyed: a field that nothing reads would be a setting that a record states and no run had."""

import copy
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from course_utils import batches, loading, training
from course_utils.loading import cache
from course_utils.training import LORA, Recipe, sft
from tests.conftest import made_examples, tiny

RECIPE = Recipe(lr=1e-2, steps=3, batch_size=2, seed=1)
OF_THE_MODEL = {
    "model": "another/model",
    "revision": "v2",
    "precision": "nf4",
    "compute_dtype": "bf16",
    "adapter": LORA,
    "trainable": "q_proj",
}
OF_THE_DATA = {"data", "subset", "template", "train_on", "max_length"}  # read by who prepares the examples
OF_THE_STEPS = {
    "lr": 2e-2,
    "steps": 2,
    "batch_size": 3,
    "accumulation": 2,
    "batch_order": "sequential",
    "schedule": "linear",
    "warmup_steps": 2,
    "weight_decay": 0.1,
    "max_grad_norm": 0.01,
    "seed": 2,
}


def trained(recipe: Recipe) -> list[float]:
    """Some weights after the plain loop."""
    torch.manual_seed(0)
    model = tiny()
    training.fit(model, made_examples(8), recipe)
    return model.model.layers[0].mlp.up_proj.weight.flatten()[:8].tolist()


def test_every_field_is_somebodys():
    named = {*OF_THE_MODEL, *OF_THE_DATA, *OF_THE_STEPS, "optim"}
    assert named == {field.name for field in fields(Recipe)}
    assert set(sft.FROM_RECIPE.values()) == {*OF_THE_STEPS, "optim"}


@pytest.mark.parametrize(("field", "value"), OF_THE_STEPS.items())
def test_the_plain_loop_obeys_every_field_of_the_steps(field, value):
    start = RECIPE if field != "warmup_steps" else replace(RECIPE, schedule="constant_with_warmup")
    assert trained(start) == trained(start)
    assert trained(replace(start, **{field: value})) != trained(start)


def test_the_plain_loop_refuses_an_optimizer_that_it_has_not():
    with pytest.raises(ValueError, match="no optimizer 'paged_adamw_8bit'; use 'adamw_torch', or sft_trainer"):
        training.fit(tiny(), made_examples(), replace(RECIPE, optim="paged_adamw_8bit"))


def test_trls_trainer_is_given_every_field_of_the_steps(tokenizer, tmp_path):
    recipe = replace(RECIPE, **OF_THE_STEPS | {"schedule": "cosine"}, optim="adafactor")
    args = training.sft_trainer(tiny(49152), tokenizer, made_examples(), tmp_path, recipe).args
    for option, field in sft.FROM_RECIPE.items():
        assert getattr(args, option) == getattr(recipe, field), option


def test_accumulated_batches_equal_one_large_batch():
    """Each token has the same weight, however its batch is cut."""
    whole = replace(RECIPE, batch_size=4, batch_order="sequential", steps=2)
    assert trained(replace(whole, batch_size=2, accumulation=2)) == pytest.approx(trained(whole), rel=1e-4)


def test_a_norm_of_zero_clips_nothing():
    """As in transformers, where 0 means no clipping; torch would scale all gradients to nothing."""
    assert trained(replace(RECIPE, max_grad_norm=0.0)) == trained(replace(RECIPE, max_grad_norm=1e9))
    assert trained(replace(RECIPE, max_grad_norm=0.0)) != trained(replace(RECIPE, steps=0))


def test_a_linear_schedule_equals_one_written_out():
    recipe = replace(RECIPE, schedule="linear", batch_order="sequential", batch_size=4, steps=4)
    torch.manual_seed(0)
    model = tiny()
    ours = copy.deepcopy(model)
    losses = training.fit(ours, made_examples(8), recipe).losses
    optimizer, expected = torch.optim.AdamW(model.parameters(), weight_decay=0.0), []
    for step, start in enumerate((0, 4, 0, 4)):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 4)
        loss = batches.supervised_loss(model.train(), batches.collate(made_examples(8)[start : start + 4]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def asked(monkeypatch):
    """What `loading.load_model` was asked for; it answers with a small model."""
    calls = []

    def load_model(*arguments, **options):
        calls.append(SimpleNamespace(arguments=arguments, **options))
        return tiny()

    monkeypatch.setattr(loading, "load_model", load_model)
    return calls


def test_the_model_is_loaded_as_the_recipe_says(asked):
    training.prepare_model(replace(RECIPE, **OF_THE_MODEL | {"trainable": None}), device="cpu")
    (call,) = asked
    assert call.arguments == ("another/model", "nf4")
    assert (call.revision, call.compute_dtype, call.device) == ("v2", torch.bfloat16, "cpu")


def test_the_adapter_is_pefts_with_a_start_that_the_seed_fixes(asked):
    tuned, again = (training.prepare_model(replace(RECIPE, adapter=LORA)) for _ in range(2))
    base = tiny()
    torch.manual_seed(RECIPE.seed)
    theirs = get_peft_model(base, LoraConfig(**{k: v for k, v in LORA.items() if k != "peft_type"}))
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(tuned.get_parameter(name), parameter)
            assert torch.equal(tuned.get_parameter(name), again.get_parameter(name))
    other = training.prepare_model(replace(RECIPE, adapter=LORA, seed=9))
    name = next(name for name, parameter in tuned.named_parameters() if "lora_A" in name)
    assert not torch.equal(tuned.get_parameter(name), other.get_parameter(name))


def test_a_pattern_names_what_is_trained(asked):
    model = training.prepare_model(replace(RECIPE, trainable=r"\.q_proj\."))
    trained_names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained_names
    assert all(".q_proj." in name for name in trained_names)
    assert all(p.requires_grad for p in training.prepare_model(RECIPE).parameters()), "full fine-tuning"
    with pytest.raises(ValueError, match=r"trainable 'nothing' names no parameter; the first one's name is 'model\."):
        training.prepare_model(replace(RECIPE, trainable="nothing"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": -1}, "steps is -1; it has to be 0 or more"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"batch_size": 0}, "batch_size is 0; it has to be 1 or more"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"batch_order": "sorted"}, "Unknown batch_order 'sorted'; choose from group_by_length, random, sequential"),
        ({"warmup_steps": 3}, "schedule 'constant' has no warmup; choose 'constant_with_warmup'"),
        ({"adapter": {"r": 4}}, "adapter has no 'peft_type'; start from training.LORA"),
        ({"adapter": LORA, "trainable": "norm"}, "leave out trainable, or the adapter"),
    ],
    ids=str,
)
def test_what_cannot_be_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        replace(RECIPE, **change)


def test_the_method_in_one_word():
    assert [r.method for r in (RECIPE, replace(RECIPE, adapter=LORA), replace(RECIPE, steps=0))] == [
        "full",
        "lora",
        "base",
    ]


def test_a_recipe_is_printed_field_by_field():
    assert [line.split()[0] for line in str(RECIPE).splitlines()] == list(asdict(RECIPE))
    assert f"model          {cache.NAME}" in str(RECIPE)
