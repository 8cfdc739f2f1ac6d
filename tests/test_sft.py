"""TRL's trainer with the course's loss: against the model's own loss, against itself, and on pretended hardware."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaForCausalLM
from trl import SFTConfig

from course_utils import batches, chat, datafiles, evaluation, loading, training
from course_utils.training import Recipe, adapter_config, checkpoints, sft
from course_utils.training.sft import SupervisedSFTTrainer
from tests.conftest import made_examples, tiny

ADAPTER = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"]}
RECIPE = Recipe(adapter=ADAPTER, batch_size=4, lr=1e-2, steps=6)
CONFIG = adapter_config(RECIPE)


def trainer(
    tokenizer, folder: Path, model: LlamaForCausalLM | None = None, recipe: Recipe = RECIPE, **options: object
) -> SupervisedSFTTrainer:
    return training.sft_trainer(model or tiny(49152), tokenizer, made_examples(), folder, recipe, **options)


def changed(**fields: object) -> Recipe:
    return replace(RECIPE, **fields)


def adapters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_only_supervised_tokens_are_scored(tokenizer, tmp_path):
    made = trainer(tokenizer, tmp_path)
    batch = next(iter(made.get_train_dataloader()))
    loss = made.compute_loss(made.model, dict(batch))
    expected = made.model(**{k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "labels")}).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (batch["labels"] == -100).any()


def test_steps_equal_those_of_the_model_trained_by_hand(tokenizer, tmp_path):
    """Losses of every step and the adapters at the end, against AdamW on the model's own loss."""
    made = trainer(tokenizer, tmp_path)
    batches = list(made.get_train_dataloader())  # the order of the first pass
    start = adapters(made.model)
    losses = training.run(made).losses
    by_hand = trainer(tokenizer, tmp_path / "by_hand").model
    by_hand.load_state_dict(start, strict=False)
    trainable = [p for p in by_hand.parameters() if p.requires_grad]
    optimizer, expected = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.0), []
    for batch in batches:
        loss = by_hand(**{k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "labels")}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert losses[: len(expected)] == pytest.approx(expected, rel=1e-4)
    assert len(expected) == 3
    assert {p.dtype for p in made.model.parameters() if p.requires_grad} == {torch.float32}


def test_accumulated_small_batches_equal_one_large_batch(tokenizer, tmp_path):
    """Each token has the same weight, however its batch is cut; the first step is compared, before Adam amplifies."""
    whole, parts = trainer(tokenizer, tmp_path / "whole", recipe=changed(steps=1)), None
    first = training.run(whole)
    parts = trainer(tokenizer, tmp_path / "parts", recipe=changed(steps=1, batch_size=2, accumulation=2))
    second = training.run(parts)
    assert second.losses == pytest.approx(first.losses, rel=1e-5)
    assert second.tokens == first.tokens
    for name, tensor in adapters(whole.model).items():
        assert torch.allclose(tensor, adapters(parts.model)[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("accumulation", [1, 2])
def test_grouped_steps_weigh_every_token_alike(tokenizer, tmp_path, accumulation):
    """As in test_training: small steps of plain SGD add up to one step on everything. The log shows plain means."""
    plain = changed(optim="sgd", max_grad_norm=0.0)
    whole = trainer(tokenizer, tmp_path / "whole", recipe=replace(plain, steps=1, batch_size=12, lr=1e-2))
    start = adapters(whole.model)
    training.run(whole)
    many = replace(plain, steps=6 // accumulation, batch_size=2, accumulation=accumulation, lr=1e-2 * accumulation / 6)
    parts = trainer(tokenizer, tmp_path / "parts", recipe=replace(many, batch_order="group_by_length"))
    losses = training.run(parts).losses
    for name, tensor in adapters(whole.model).items():
        if "lora_B" in name:  # A starts to move when B is no longer zero
            moved = tensor - start[name]
            assert (adapters(parts.model)[name] - tensor).norm() <= 0.02 * moved.norm(), name
            assert moved.any()
    assert min(losses) == pytest.approx(max(losses), abs=0.2), "means over tokens, however many a batch has"


def test_grouped_passes_are_those_of_the_plain_loop(tokenizer, tmp_path):
    """14 examples: three full batches a pass, and two that are left over, which TRL takes as a smaller one."""
    examples = made_examples(14)
    recipe = changed(batch_order="group_by_length", seed=5)
    made = training.sft_trainer(tiny(49152), tokenizer, examples, tmp_path, recipe)
    loader, plain = made.get_train_dataloader(), batches.batches(examples, 4, 5, "group_by_length")
    for epoch in range(3):
        loader.set_epoch(epoch)
        seen = [batch["input_ids"].tolist() for batch in loader]
        assert [len(batch) for batch in seen] == [4, 4, 4, 2]
        for batch in seen[:3]:
            assert batch == batches.collate(next(plain), tokenizer.pad_token_id)["input_ids"].tolist()


SAVING = {"save_strategy": "steps", "save_steps": 2}


@pytest.mark.parametrize("order", ["random", "group_by_length", "sequential"])
def test_interrupted_training_resumes_where_it_stopped(tokenizer, tmp_path, order):
    """Six steps in one go equal four steps, a stop in the middle of a pass, and two more."""
    recipe = changed(batch_order=order)
    whole = training.run(trainer(tokenizer, tmp_path / "whole", recipe=recipe, **SAVING)).losses
    first = training.run(trainer(tokenizer, tmp_path / "parts", recipe=replace(recipe, steps=4), **SAVING)).losses
    torch.manual_seed(99)  # another process has drawn other numbers by now
    both = training.run(trainer(tokenizer, tmp_path / "parts", recipe=recipe, **SAVING)).losses
    assert first == pytest.approx(whole[:4], rel=1e-5)
    assert both == pytest.approx(whole, rel=1e-5)


@pytest.fixture(scope="module")
def finished(tokenizer, tmp_path_factory) -> tuple[Path, list[float]]:
    """The folder of a finished run of six steps, and its losses."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, training.run(trainer(tokenizer, folder, **SAVING)).losses


@pytest.fixture
def stopped(finished, tmp_path) -> tuple[Path, list[float]]:
    """A copy of it."""
    return shutil.copytree(finished[0], tmp_path / "copy"), finished[1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "tear",
    [
        lambda folder: (folder / "trainer_state.json").unlink(),  # the process was killed while it saved
        lambda folder: cut(folder / "trainer_state.json"),
        lambda folder: cut(folder / "adapter_model.safetensors"),
        lambda folder: cut(folder / "optimizer.pt"),
        lambda folder: (folder / "optimizer.pt").unlink(),
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        lambda folder: cut(folder / "rng_state.pth"),
    ],
    ids=["no state", "half a state", "half the weights", "half the optimizer", "no optimizer", "no weights", "rng"],
)
def test_a_torn_checkpoint_falls_back_to_the_whole_one_before(tokenizer, stopped, capsys, tear):
    folder, losses = stopped
    tear(folder / "checkpoint-6")
    again = training.run(trainer(tokenizer, folder, **SAVING))
    assert again.losses == pytest.approx(losses, rel=1e-5)
    assert 0 < again.tokens < sum(len(example["input_ids"]) for example in made_examples()), "two steps of four"
    assert "checkpoint-6 was not written to its end" in capsys.readouterr().err


@pytest.mark.parametrize("steps", [4, 6], ids=["within a pass over the data", "at the end of one"])
def test_a_finished_run_is_not_repeated(tokenizer, tmp_path, steps):
    """transformers would make one more step, and save it, each time that a run is over within a pass."""
    first, again = (trainer(tokenizer, tmp_path, recipe=changed(steps=steps), **SAVING) for _ in range(2))
    losses = training.run(first).losses
    found = training.run(again)
    assert found.losses == pytest.approx(losses)
    assert (len(found.losses), found.tokens, found.tokens_per_second) == (steps, 0, 0)
    assert checkpoints.last_whole(tmp_path).name == f"checkpoint-{steps}"
    for name, tensor in adapters(first.model).items():
        assert torch.equal(tensor, adapters(again.model)[name]), name


def test_a_trainer_runs_once(tokenizer, tmp_path):
    """A second time it would train without autocast."""
    made = trainer(tokenizer, tmp_path, recipe=changed(steps=1))
    training.run(made)
    with pytest.raises(ValueError, match="has run already. Make a new one with sft_trainer"):
        training.run(made)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 3e-3}, r"lr 0\.01 there, 0\.003 now"),
        ({"seed": 1}, "seed"),
        ({"batch_size": 2, "accumulation": 2}, "batch_size"),
        ({"schedule": "linear"}, "schedule"),
    ],
    ids=["rate", "seed", "batch", "schedule"],
)
def test_other_settings_are_another_run(tokenizer, stopped, change, named):
    with pytest.raises(
        ValueError, match=rf"checkpoints of another run \(different: .*{named}.*Name another output_dir"
    ):
        training.run(trainer(tokenizer, stopped[0], recipe=changed(**change), **SAVING))


def test_other_data_and_other_adapters_are_another_run(tokenizer, stopped):
    with pytest.raises(ValueError, match=r"different: default\.r 4 there, 8 now\)"):
        training.run(trainer(tokenizer, stopped[0], recipe=changed(adapter={**ADAPTER, "r": 8})))
    with pytest.raises(ValueError, match=r"different: data\)"):
        training.run(training.sft_trainer(tiny(49152), tokenizer, made_examples(9), stopped[0], RECIPE))
    with pytest.raises(ValueError, match=r"different: dtype torch\.float32 there, torch\.bfloat16 now\)"):
        training.run(trainer(tokenizer, stopped[0], tiny(49152).bfloat16()))
    (stopped[0] / checkpoints.IDENTITY).unlink()
    with pytest.raises(ValueError, match=r"there is no run\.json that describes it"):
        training.run(trainer(tokenizer, stopped[0]))


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(tokenizer, tmp_path, monkeypatch):
    """transformers would log it as 0.0, train on, and save the ruin over the good checkpoint."""
    made, whole, calls = trainer(tokenizer, tmp_path, **{**SAVING, "save_steps": 1}), batches.supervised_loss, []

    def breaks_at_the_third(*inputs: object) -> torch.Tensor:
        calls.append(1)
        return whole(*inputs) * (float("nan") if len(calls) >= 3 else 1.0)

    monkeypatch.setattr(sft, "supervised_loss", breaks_at_the_third)
    with pytest.raises(FloatingPointError, match="The loss at step 3 is nan"):
        training.run(made)
    assert checkpoints.last_whole(tmp_path).name == "checkpoint-2"
    assert [entry["loss"] for entry in made.state.log_history] == pytest.approx([4, 4], abs=8), "no made-up zeros"


@pytest.mark.parametrize(("saving", "broken", "good"), [("steps", 2, 1), ("epoch", 6, 3)])
def test_parameters_that_are_no_numbers_are_not_saved(tokenizer, tmp_path, saving, broken, good):
    """The loss of a step can be finite and its gradient not; the next loss would tell, after the checkpoint."""
    made = trainer(tokenizer, tmp_path, recipe=changed(max_grad_norm=0.0), save_strategy=saving, save_steps=1)
    weight = next(p for p in made.model.parameters() if p.requires_grad)
    weight.register_hook(lambda gradient: gradient * float("inf") if made.state.global_step == broken - 1 else gradient)
    with pytest.raises(FloatingPointError, match=f"After step {broken} a trained parameter is nan or infinite"):
        training.run(made)
    assert checkpoints.last_whole(tmp_path).name == f"checkpoint-{good}"


def test_a_newer_peft_does_not_make_another_run(tokenizer, stopped):
    """It may know fields that the stored description lacks."""
    path = stopped[0] / checkpoints.IDENTITY
    described = json.loads(path.read_text(encoding="utf-8"))
    assert "default.peft_version" not in described
    del described["default.use_dora"]
    path.write_text(json.dumps(described), encoding="utf-8")
    assert training.run(trainer(tokenizer, stopped[0], **SAVING)).losses == pytest.approx(stopped[1])


def checkpoint_of(folder: Path, *weights: str) -> Path:
    """A made-up checkpoint with empty weights in these files."""
    (folder / "checkpoint-1").mkdir()
    for name in weights:
        (folder / "checkpoint-1" / name).parent.mkdir(exist_ok=True)
        save_file({"weight": torch.zeros(1)}, folder / "checkpoint-1" / name)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"):
        torch.save({}, folder / "checkpoint-1" / name)
    (folder / "checkpoint-1" / "trainer_state.json").write_text("{}", encoding="utf-8")
    return folder / "checkpoint-1"


def test_adapters_with_a_name_and_models_in_shards_are_whole_or_not(tmp_path):
    (tmp_path / "named").mkdir()
    assert checkpoints.last_whole(tmp_path / "named") is None
    named = checkpoint_of(tmp_path / "named", "dates/adapter_model.safetensors")
    assert checkpoints.last_whole(tmp_path / "named") == named
    cut(named / "scaler.pt")
    assert checkpoints.last_whole(tmp_path / "named") is None
    (tmp_path / "sharded").mkdir()
    sharded = checkpoint_of(tmp_path / "sharded", "model-1-of-2.safetensors", "model-2-of-2.safetensors")
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert checkpoints.last_whole(tmp_path / "sharded") == sharded
    (sharded / "model-2-of-2.safetensors").unlink()
    assert checkpoints.last_whole(tmp_path / "sharded") is None


@pytest.mark.parametrize(
    "option",
    [{"packing": True}, {"label_smoothing_factor": 0.1}, {"loss_type": "dft"}, {"save_only_model": True}],
    ids=str,
)
def test_options_that_would_be_ignored_are_refused(tokenizer, tmp_path, option):
    with pytest.raises(ValueError, match=rf"{next(iter(option))}.*trl\.SFTTrainer itself"):
        trainer(tokenizer, tmp_path, **option)


@pytest.mark.parametrize("option", [*sft.FROM_RECIPE, "num_train_epochs", "peft_config"])
def test_what_the_recipe_says_is_said_once(tokenizer, tmp_path, option):
    with pytest.raises(ValueError, match=f"{option}: the recipe says that"):
        trainer(tokenizer, tmp_path, **{option: 1})


def test_a_recipe_without_steps_trains_nothing(tokenizer, tmp_path):
    """transformers would take 0 for "as many as three passes make"."""
    with pytest.raises(ValueError, match="The recipe has 0 steps"):
        trainer(tokenizer, tmp_path, recipe=changed(steps=0))


def test_a_run_that_saves_nothing_reads_no_data_for_its_identity(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "identity", lambda *_: pytest.fail("looked at for nothing"))
    training.run(trainer(tokenizer, tmp_path, recipe=changed(steps=1)))
    assert not (tmp_path / checkpoints.IDENTITY).exists()


def test_evaluation_counts_no_training_tokens(tokenizer, tmp_path):
    made = trainer(tokenizer, tmp_path, recipe=changed(steps=2))
    before = made.evaluate(made.train_dataset)["eval_loss"]
    assert made.tokens_seen == 0
    batch = batches.collate(made_examples())
    with torch.no_grad():
        assert before == pytest.approx(batches.supervised_loss(made.model, batch).item(), rel=1e-4)


def test_an_empty_set_is_named(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="The list of examples is empty"):
        training.sft_trainer(tiny(), tokenizer, [], tmp_path, RECIPE)


def test_the_wrapper_of_mixed_precision_is_taken_off(tokenizer, tmp_path):
    """With it, the model's logits differ from those of the same adapter loaded again."""
    made = trainer(tokenizer, tmp_path, tiny(49152).bfloat16(), changed(steps=3), bf16=True)
    training.run(made)
    made.model.save_pretrained(tmp_path / "saved")
    again = PeftModel.from_pretrained(tiny(49152).bfloat16(), tmp_path / "saved")
    ids = batches.collate(made_examples(2))["input_ids"]
    with torch.no_grad():
        first, second = made.model.eval()(ids).logits, again.eval()(ids).logits
    assert first.dtype == second.dtype == torch.bfloat16
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "adapter",
    [
        {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"peft_type": "LN_TUNING", "target_modules": ["input_layernorm"]},
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"},
        None,
    ],
    ids=["LoRA and the head", "layer norms", "prompt", "everything"],
)
@pytest.mark.parametrize("autocast", [True, False])
def test_a_model_in_16_bits_can_be_used_after_training(tokenizer, tmp_path, adapter, autocast):
    """What lies between its layers goes back into their format when autocast is taken off."""
    recipe = changed(adapter=adapter, steps=2)
    made = trainer(tokenizer, tmp_path, tiny(49152).bfloat16(), recipe, bf16=autocast)
    training.run(made)
    assert evaluation.nll(made.model, made_examples()).mean > 0


def test_two_visible_gpus_do_not_stop_a_notebook(tokenizer, tmp_path, monkeypatch, capsys):
    """In one process one of them is used: transformers would take both by DataParallel, which TRL refuses."""
    original = SFTConfig.__post_init__

    def two_gpus(self: SFTConfig) -> None:
        original(self)
        self._n_gpu = 2

    monkeypatch.setattr(SFTConfig, "__post_init__", two_gpus)
    made = trainer(tokenizer, tmp_path)
    assert (made.args.n_gpu, made.args.train_batch_size) == (1, 4)
    assert "2 GPUs are visible; this process trains on one" in capsys.readouterr().err


def test_float16_has_room_for_the_residual_stream(model, tokenizer):
    """A T4 computes in float16, which ends at 65,504; layer 11 of this model already reaches about 26,000."""
    trees = datafiles.load_conversations(split="train")[:28]
    examples, largest = chat.encode_all(map(chat.top_thread, trees), tokenizer), []
    hooks = [
        layer.register_forward_hook(lambda *call: largest.append(call[-1].abs().max().item()))
        for layer in model.model.layers
    ]
    try:
        evaluation.nll(model, examples)
    finally:
        for hook in hooks:
            hook.remove()
    assert 1_000 < max(largest) < 40_000


def test_a_t4s_way_of_training_stays_finite(examples):
    """Autocast in float16, the scaler, and the fused optimizer, on the CPU: no step is skipped, and the loss falls."""
    model = get_peft_model(loading.load_model(precision="nf4-dq", compute_dtype=torch.float16, device="cpu"), CONFIG)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer, scaler = torch.optim.AdamW(trainable, lr=1e-3, fused=True), torch.amp.GradScaler("cpu")
    losses, batch = [], batches.collate(examples[:4])
    for _ in range(3):
        with torch.autocast("cpu", torch.float16):
            loss = batches.supervised_loss(model.train(), batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert scaler.get_scale() == 65536
    assert all(p.isfinite().all() for p in trainable)


class Asked(Exception):
    """Carries the arguments that a trainer would have been built with."""


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("cpu", (8, 0), {"use_cpu": True, "bf16": False, "fp16": False, "dataloader_pin_memory": False}),
        ("cuda", (8, 0), {"use_cpu": False, "bf16": True, "fp16": False, "dataloader_pin_memory": True}),
        ("cuda", (7, 5), {"use_cpu": False, "bf16": False, "fp16": True, "dataloader_pin_memory": True}),
        ("mps", (8, 0), {"use_cpu": False, "bf16": False, "fp16": False, "dataloader_pin_memory": False}),
    ],
)
def test_the_trainer_asks_the_model_where_it_lies_not_the_machine(
    tokenizer, tmp_path, monkeypatch, device, capability, expected
):
    """A model on the CPU of a machine with a GPU is trained on that CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    def asked(**settings: object) -> None:
        raise Asked(settings)

    monkeypatch.setattr(sft, "SFTConfig", asked)
    model = tiny()
    monkeypatch.setattr(type(model), "parameters", lambda self: iter([torch.zeros(1, device="meta")]))
    monkeypatch.setattr(torch.Tensor, "device", property(lambda self: torch.device(device)))
    with pytest.raises(Asked) as found:
        training.sft_trainer(model, tokenizer, made_examples(), tmp_path, RECIPE)
    assert {name: found.value.args[0][name] for name in expected} == expected
