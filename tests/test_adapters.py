"""Saved adapters: what was saved is what is loaded, and what is not whole, or not for this model, is refused."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_config, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import loading
from course_utils.studies.methods import METHODS
from tests.conftest import tiny

IDS = torch.tensor([[5, 9, 33, 2, 60]])
LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj", "down_proj"]}
ADAPTERS = {name: dict(adapter) for name, (adapter, _) in METHODS.items()} | {
    "AdaLoRA": {**LORA, "peft_type": "ADALORA", "total_step": 10},
    "PiSSA": {**LORA, "init_lora_weights": "pissa"},
    "head": {**LORA, "modules_to_save": ["lm_head"]},
    "tokens": {**LORA, "trainable_token_indices": [1, 2]},
    "prefix with encoder": {
        "peft_type": "PREFIX_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": 3,
        "prefix_projection": True,
        "encoder_hidden_size": 8,
    },
}


@torch.no_grad()
def saved(folder: Path, adapter: dict, base=None) -> torch.Tensor:
    """Save an adapter whose every weight has moved; returns the logits of the model that has it."""
    torch.manual_seed(1)
    model = get_peft_model(base or tiny(), get_peft_config(dict(adapter))).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder, save_embedding_layers=False)
    return model(IDS).logits


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(IDS).logits


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_was_saved_is_what_is_loaded(tmp_path, name):
    wanted = saved(tmp_path, ADAPTERS[name])
    base = tiny()
    torch.manual_seed(7)  # another start than that of the adapter that was saved
    model = loading.load_adapter(base, tmp_path)
    torch.testing.assert_close(logits(model), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(logits(tiny()), wanted[:, -IDS.shape[1] :], atol=1e-4)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_adapters_lie_beside_each_other_and_each_is_its_own(tmp_path):
    wanted = {name: saved(tmp_path / name, {**LORA, "r": r}) for name, r in (("one", 2), ("two", 8))}
    model = loading.load_adapter(tiny(), tmp_path / "one", name="one")
    assert loading.load_adapter(model, tmp_path / "two", name="two", trainable=True) is model
    for name, values in wanted.items():
        model.set_adapter(name)
        torch.testing.assert_close(logits(model), values)
    with pytest.raises(loading.AdapterError, match=r"already has adapters named one, two.*another name"):
        loading.load_adapter(model, tmp_path / "one", name="two")


def test_an_adapter_of_a_4_bit_base_is_put_on_one(tmp_path):
    tiny(hidden_size=64).save_pretrained(tmp_path / "base")  # whole blocks in a row
    base = [loading.load_model(str(tmp_path / "base"), "nf4", compute_dtype=torch.float32, device="cpu") for _ in "12"]
    wanted = saved(tmp_path / "adapter", LORA, base[0])
    torch.testing.assert_close(logits(loading.load_adapter(base[1], tmp_path / "adapter")), wanted)


def test_a_trainable_adapter_can_be_trained_on(tmp_path):
    saved(tmp_path, LORA)
    model = loading.load_adapter(tiny(), tmp_path, trainable=True)
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def dropped(folder: Path) -> None:
    rewrite(folder, lambda weights: {key: value for key, value in weights.items() if ".layers.1." not in key})


def added(folder: Path) -> None:
    rewrite(folder, lambda weights: weights | {"base_model.model.model.layers.0.mlp.more.weight": torch.ones(2)})


def reshaped(folder: Path) -> None:
    rewrite(folder, lambda weights: {key: value[..., :-1].contiguous() for key, value in weights.items()})


def emptied(folder: Path) -> None:
    rewrite(folder, lambda weights: {})


def rewrite(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


def cut(name: str):
    def cut_file(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return cut_file


def removed(name: str):
    return lambda folder: (folder / name).unlink()


def configured(**fields):
    def write(folder: Path) -> None:
        path = folder / "adapter_config.json"
        changed = json.loads(path.read_text(encoding="utf-8")) | fields
        path.write_text(json.dumps(changed), encoding="utf-8")

    return write


def moved_inside(folder: Path) -> None:
    shutil.copytree(folder, folder / "poetry")
    for path in folder.glob("*.*"):
        path.unlink()


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


FAULTS = {
    "no folder": (shutil.rmtree, "is no folder"),
    "no configuration": (removed("adapter_config.json"), "has no adapter_config.json.*save it again"),
    "in a folder inside": (moved_inside, "folders poetry do: name one"),
    "configuration cut": (cut("adapter_config.json"), "adapter_config.json was not written to its end"),
    "no weights": (removed("adapter_model.safetensors"), "has no adapter_model.safetensors"),
    "weights pickled": (pickled, "a pickle, which can run any code"),
    "weights cut": (cut("adapter_model.safetensors"), "adapter_model.safetensors was not written to its end"),
    "weights empty": (emptied, "is empty, it holds no weights"),
    "a layer missing": (dropped, r"weights 4 missing \(the first: .*layers\.1"),
    "a weight too many": (added, r"1 not of this adapter \(the first: .*more"),
    "other shapes": (reshaped, r"8 of another shape \(the first: .*, here \("),
    "another rank": (configured(r=8), "8 of another shape"),
    "another type": (configured(peft_type="IA3", feedforward_modules=["down_proj"]), "4 missing.*8 not of this"),
    "no type": (configured(peft_type="LARA"), "peft_type is 'LARA', which is no method"),
    "other layers": (configured(target_modules=["c_attn"]), "does not fit this model: .*c_attn"),
    "another base": (configured(base_model_name_or_path="some/other"), "made for 'some/other'.*'toy/tiny'"),
    "a start by a draw": (configured(init_lora_weights="pissa_niter_4"), "'pissa_niter_4' also changed the frozen"),
    "a start by data": (configured(init_lora_weights="lora_ga"), "path_initial_model_for_weight_conversion"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_whole_or_not_for_this_model_is_refused_and_the_model_left_alone(tmp_path, fault):
    folder = tmp_path / "adapter"
    saved(folder, LORA)
    damage, words = FAULTS[fault]
    damage(folder)
    model = tiny()
    model.name_or_path = model.config.name_or_path = "toy/tiny"
    with pytest.raises(loading.AdapterError, match=f"(?s){words}"):
        loading.load_adapter(model, folder)
    torch.testing.assert_close(logits(model), logits(tiny()), rtol=0, atol=0)
    assert [name for name, _ in model.named_modules()] == [name for name, _ in tiny().named_modules()]


def test_pefts_own_loader_takes_half_an_adapter_for_a_whole_one(tmp_path):
    """Why the check is here; when this fails, PEFT has become stricter."""
    wanted = saved(tmp_path, LORA)
    dropped(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        half = PeftModel.from_pretrained(tiny(), tmp_path)
    assert not torch.allclose(logits(half), wanted, atol=1e-3)


def test_a_drawn_start_does_not_come_back_from_its_file(tmp_path):
    """PiSSA with a randomized decomposition: PEFT reloads it as another model. Saved as plain LoRA it is the same."""

    def base():
        model = tiny()
        for name, weight in model.named_parameters():
            weight.data *= 10 if name.endswith("_proj.weight") else 1  # else what they do would hardly be seen
        return model

    torch.manual_seed(1)
    model = get_peft_model(base(), get_peft_config({**LORA, "init_lora_weights": "pissa_niter_1"}))
    model.save_pretrained(tmp_path / "start")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter += 0.3 * torch.randn_like(parameter)
    wanted = logits(model)
    model.save_pretrained(tmp_path / "drawn")
    with pytest.raises(loading.AdapterError, match="also changed the frozen weights"):
        loading.load_adapter(base(), tmp_path / "drawn")
    other = base()
    torch.manual_seed(2)
    reloaded = logits(PeftModel.from_pretrained(other, tmp_path / "drawn"))
    model.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    converted = logits(loading.load_adapter(base(), tmp_path / "converted"))
    assert (reloaded - wanted).abs().max() > 100 * (converted - wanted).abs().max()
    torch.testing.assert_close(converted, wanted, rtol=1e-3, atol=1e-4)


def test_ranks_that_adalora_has_given_away_are_as_they_were_saved(tmp_path):
    budget = {"init_r": 4, "target_r": 2, "total_step": 8, "tinit": 1, "tfinal": 4, "deltaT": 1}
    model = get_peft_model(tiny(), get_peft_config({**ADAPTERS["AdaLoRA"], **budget}))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in range(8):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    assert any(False in kept for kept in model.peft_config["default"].rank_pattern.values())
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    torch.testing.assert_close(logits(loading.load_adapter(tiny(), tmp_path)), logits(model), rtol=1e-4, atol=1e-5)


def test_an_adapter_of_a_wider_model_is_refused(tmp_path):
    wide = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    saved(tmp_path, LORA, LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=2, **wide)))
    with pytest.raises(loading.AdapterError, match="of another shape"):
        loading.load_adapter(tiny(), tmp_path)


@pytest.mark.parametrize("name", ["P-tuning", "prefix with encoder"])
def test_virtual_tokens_without_their_encoder_cannot_be_trained_on(tmp_path, name):
    saved(tmp_path, ADAPTERS[name])
    with pytest.raises(loading.AdapterError, match="not the encoder that made them"):
        loading.load_adapter(tiny(), tmp_path, trainable=True)


def test_a_model_has_adapters_of_one_type(tmp_path):
    saved(tmp_path / "lora", LORA)
    saved(tmp_path / "prompt", ADAPTERS["prompt tuning"])
    model = loading.load_adapter(tiny(), tmp_path / "lora")
    with pytest.raises(loading.AdapterError, match="is of type PROMPT_TUNING, those of the model of LORA"):
        loading.load_adapter(model, tmp_path / "prompt", name="prompt")


def test_a_model_is_no_adapter(tmp_path):
    tiny().save_pretrained(tmp_path)
    with pytest.raises(loading.AdapterError, match=r"holds a model, not an adapter.*load_model"):
        loading.load_adapter(tiny(), tmp_path)
