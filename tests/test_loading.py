"""The model in every precision, and 4-bit models that stay trainable after an eval-mode forward."""

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub import constants
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from course_utils import batches, chat, datafiles, evaluation, loading, machine, memory
from course_utils.core import files
from course_utils.loading import cache
from course_utils.loading.restored import check_restored
from tests.conftest import tiny

HAS_TRAP = getattr(torch.cpu, "get_capabilities", dict)().get("avx512_bf16", False)
PUBLIC_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
IDS = torch.tensor([[1, 2, 3, 4]])


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A folder with a random model that loads in no time."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("small")
    LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def no_hub(monkeypatch) -> None:
    """The hub's client read its environment long ago; without this it tries for a minute."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def small_default(small, monkeypatch, tmp_path) -> Path:
    """A copy of the small model that plays the default model of this machine."""
    folder = tmp_path / "cache" / "default"
    shutil.copytree(small, folder)
    monkeypatch.setattr(cache, "default_model_dir", lambda: folder)
    return folder


def test_default_model_is_the_one_described(model, tokenizer):
    assert memory.count_parameters(model) == 134_515_008  # SmolLM2-135M's published shape, head tied
    linear = sum(m.weight.numel() for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear))
    assert linear == 106_168_320
    assert model.dtype == torch.float32
    assert not model.training
    assert tokenizer.decode(tokenizer("Déjà vu, 42!")["input_ids"]) == "Déjà vu, 42!"
    assert not hasattr(model.config, "quantization_config")


def test_model_predicts_english(model, tokenizer):
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = model(**ids).logits[0, -1].argmax()
    assert tokenizer.decode(best).strip() == "Paris"


def test_default_model_needs_no_network_and_no_conversion(model, monkeypatch):
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("loading the default model, once it is cached, reads local files and nothing else")

    for module, name in ((socket, "getaddrinfo"), (socket.socket, "connect"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, forbidden)
    monkeypatch.setattr(cache, "_build", forbidden)
    assert loading.load_model(device="cpu").num_parameters() == model.num_parameters()
    assert len(loading.load_tokenizer()) == 49152


def test_unknown_precision_names_the_choices():
    with pytest.raises(ValueError, match=r"'4bit'.*nf4-dq"):
        loading.load_model(precision="4bit")


def test_model_that_is_not_there_says_what_to_do(no_hub):
    with pytest.raises(OSError, match=r"'nobody/nothing'.*path of a local folder.*HF_HUB_OFFLINE"):
        loading.load_model("nobody/nothing", revision="v1")
    with pytest.raises(OSError, match="nobody/nothing"):
        loading.load_tokenizer("nobody/nothing")


@pytest.mark.parametrize("path", ["./no-model", "../no-model", "/no/model", "~/no-model", "no/such/model", "no model"])
@pytest.mark.parametrize("load", [loading.load_model, loading.load_tokenizer])
def test_a_folder_that_is_not_there_is_named(load, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"/.*model is not there"):
        load(path)


def test_home_is_expanded(small, monkeypatch):
    monkeypatch.setenv("HOME", str(small.parent))
    monkeypatch.setenv("USERPROFILE", str(small.parent))
    assert loading.load_model(f"~/{small.name}", device="cpu").num_parameters() > 0


@pytest.mark.parametrize("model_id", ["", " "])
@pytest.mark.parametrize("load", [loading.load_model, loading.load_tokenizer])
def test_an_empty_id_is_no_model(load, model_id):
    with pytest.raises(ValueError, match="model_id is empty"):
        load(model_id)


def lacking(*names: str) -> dict[str, bytes | None]:
    return dict.fromkeys(names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lacking("config.json"), r"no config\.json.*save_pretrained"),
        (lacking("config.json") | {"adapter_config.json": b"{}"}, r"an adapter.*PeftModel\.from_pretrained"),
        (lacking("model.safetensors"), r"no weights"),
        (lacking("model.safetensors") | {"pytorch_model.bin": b""}, r"safetensors only.*pickle.*use_safetensors=False"),
        ({"model.safetensors": b"half"}, r"It needs config\.json and model\.safetensors, whole"),
        ({"config.json": b"{"}, r"It needs config\.json and model\.safetensors, whole"),
        ({"config.json": b"{}"}, r"It needs config\.json and model\.safetensors, whole"),
    ],
)
def test_a_folder_that_holds_no_whole_model_says_what_it_lacks(small, tmp_path, changes, message):
    folder = Path(shutil.copytree(small, tmp_path / "model"))
    for name, content in changes.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    with pytest.raises(OSError, match=message) as caught:
        loading.load_model(str(folder), device="cpu")
    assert str(folder) in str(caught.value)
    assert "network" not in str(caught.value)


def test_pickled_weights_load_once_converted_as_the_error_says(small, tmp_path):
    pickled = Path(shutil.copytree(small, tmp_path / "pickled"))
    expected = loading.load_model(str(small), "fp32", device="cpu").state_dict()
    (pickled / "model.safetensors").unlink()
    torch.save(expected, pickled / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors only") as caught:
        loading.load_model(str(pickled))
    line = str(caught.value).split("`")[1]
    exec(line, {"AutoModelForCausalLM": AutoModelForCausalLM, "new_folder": tmp_path / "new"})
    found = loading.load_model(str(tmp_path / "new"), "fp32", device="cpu").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_folder_without_tokenizer_says_so(small):
    with pytest.raises(OSError, match=r"tokenizer in the folder .*tokenizer\.json and tokenizer_config\.json"):
        loading.load_tokenizer(str(small))


def test_any_local_folder_loads_through_the_same_function(model):
    again = loading.load_model(str(cache.default_model_dir()), precision="bf16", device="cpu")
    assert again.dtype == torch.bfloat16
    weight = model.model.layers[3].mlp.up_proj.weight.to(torch.bfloat16)
    assert torch.equal(again.model.layers[3].mlp.up_proj.weight, weight)


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_16_bit_takes_half_the_bytes(precision, dtype):
    model = loading.load_model(precision=precision, device="cpu")
    assert model.dtype == dtype
    assert memory.tensor_bytes(model.parameters()) == 2 * 134_515_008


@pytest.mark.parametrize("precision", ["nf4", "nf4-dq", "fp4"])
def test_4_bit_weights_are_those_of_bitsandbytes(model, precision):
    quantized = loading.load_model(precision=precision, compute_dtype=torch.float32, device="cpu")
    layer = quantized.model.layers[7].self_attn.q_proj
    kind, double = precision.removesuffix("-dq"), precision.endswith("-dq")
    packed, state = bnb.functional.quantize_4bit(
        model.model.layers[7].self_attn.q_proj.weight, blocksize=64, quant_type=kind, compress_statistics=double
    )
    assert torch.equal(layer.weight.flatten(), packed.flatten())
    assert layer.weight.quant_state.nested is double
    assert layer.compute_dtype == torch.float32
    assert sum(isinstance(m, Linear4bit) for m in quantized.modules()) == 210
    assert memory.count_parameters(quantized) == memory.count_parameters(model)


def test_int8_keeps_the_loss(model, examples):
    quantized = loading.load_model(precision="int8", compute_dtype=torch.float32, device="cpu")
    assert evaluation.nll(quantized, examples).mean == pytest.approx(evaluation.nll(model, examples).mean, rel=0.03)


@pytest.mark.parametrize(("precision", "compute"), [("auto", torch.float32), ("fp32", torch.float32)])
def test_compute_dtype_leaves_the_format_of_plain_weights_alone(small, monkeypatch, precision, compute):
    monkeypatch.setattr(machine, "fast_dtype", lambda _=None: torch.float32)
    model = loading.load_model(str(small), precision, compute_dtype=torch.bfloat16, device="cpu")
    assert model.dtype == compute


def save_quantized(small: Path, precision: str, folder: Path) -> torch.Tensor:
    """Save the small model as a quantized checkpoint; its logits."""
    model = loading.load_model(str(small), precision, compute_dtype=torch.float32, device="cpu")
    model.save_pretrained(folder)
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("asked", ["auto", "as stored"])
@pytest.mark.parametrize("precision", loading.QUANTIZED)
def test_a_quantized_checkpoint_loads_as_it_is_stored(small, tmp_path, precision, asked):
    expected = save_quantized(small, precision, tmp_path)
    asked = precision if asked == "as stored" else asked
    model = loading.load_model(str(tmp_path), asked, compute_dtype=torch.float32, device="cpu")
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, expected)


def test_a_quantized_checkpoint_multiplies_in_the_format_asked_for(small, tmp_path):
    save_quantized(small, "nf4", tmp_path)
    model = loading.load_model(str(tmp_path), compute_dtype=torch.bfloat16, device="cpu")
    assert {m.compute_dtype for m in model.modules() if isinstance(m, Linear4bit)} == {torch.bfloat16}


@pytest.mark.parametrize("precision", ["auto", "nf4"])
def test_a_4_bit_checkpoint_is_made_safe_to_train(small, tmp_path, monkeypatch, precision):
    """As on a CPU with AVX512-BF16: the model decides, not the argument."""
    save_quantized(small, "nf4", tmp_path)
    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: True)
    model = loading.load_model(str(tmp_path), precision, compute_dtype=torch.float32, device="cpu")
    assert [m.support_avx512bf16_for_cpu for m in model.modules() if isinstance(m, Linear4bit)] == [False] * 14


@pytest.mark.parametrize("columns", [*range(2, 200, 6), 16, 32, 48, 64, 96, 128, 192, 256, 576])
@pytest.mark.parametrize(("quant_type", "double"), [("nf4", False), ("nf4", True), ("fp4", False)])
def test_layers_that_come_back_otherwise_than_packed_are_refused_and_no_others(columns, quant_type, double):
    """What was packed is read by its definition: a byte holds two indexes, the first one in its high bits."""
    weight = torch.randn(12, columns)
    layer = Linear4bit(columns, 12, bias=False, quant_type=quant_type, compress_statistics=double)
    layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type=quant_type, compress_statistics=double)
    layer.to("cpu")
    state = layer.weight.quant_state
    packed = layer.weight.data.flatten()
    index = torch.stack([packed >> 4, packed & 15], dim=1).flatten()[: weight.numel()].long()
    absmax = state.absmax
    if double:
        absmax = bnb.functional.dequantize_blockwise(absmax, state.state2) + state.offset
    by_hand = (state.code[index] * absmax.repeat_interleave(64)[: weight.numel()]).reshape(weight.shape)
    right = torch.allclose(bnb.functional.dequantize_4bit(layer.weight.data, state), by_hand, atol=1e-5)
    with nullcontext() if right else pytest.raises(ValueError, match=f"weights of '0'.*rows of {columns} numbers.*64"):
        check_restored(torch.nn.Sequential(layer))
    assert right or columns % 64


def test_a_model_that_comes_back_wrongly_is_not_loaded(small, monkeypatch):
    """On every CPU: a kernel that begins a new block with each row."""
    torch.manual_seed(0)
    folder = small.parent / "narrow"
    tiny(hidden_size=48).save_pretrained(folder)
    restored = bnb.functional.dequantize_4bit

    def row_by_row(packed, state):
        rows, columns = state.shape
        return restored(packed, state) if rows == 1 else torch.zeros(rows, columns)

    monkeypatch.setattr("course_utils.loading.restored.dequantize_4bit", row_by_row)
    with pytest.raises(ValueError, match=r"'model.layers.0.self_attn.q_proj' wrongly on this CPU.*48.*64.*'bf16'"):
        loading.load_model(str(folder), "nf4", compute_dtype=torch.float32, device="cpu")
    assert loading.load_model(str(folder), "int8", compute_dtype=torch.float32, device="cpu")
    assert loading.load_model(str(small), "nf4", compute_dtype=torch.float32, device="cpu"), "whole blocks"


@pytest.mark.parametrize(
    ("stored", "asked"), [("int8", "fp32"), ("int8", "nf4"), ("nf4", "bf16"), ("nf4", "nf4-dq"), ("nf4-dq", "int8")]
)
def test_a_quantized_checkpoint_is_not_taken_for_another(small, tmp_path, stored, asked):
    save_quantized(small, stored, tmp_path)
    with pytest.raises(ValueError, match=rf"is stored in {stored}.*in {asked}\. .*dequantize"):
        loading.load_model(str(tmp_path), asked, device="cpu")


def make_adapter(folder: Path) -> tuple[PeftModel, torch.Tensor]:
    """Save an adapter of the default model; the model that has it, and its logits."""
    model = get_peft_model(
        loading.load_model(precision="fp32", device="cpu"),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="gaussian", task_type="CAUSAL_LM"),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    with torch.no_grad():
        return model, model(IDS).logits


def test_an_adapter_names_the_default_model_as_the_hub_does(small_default, tmp_path):
    """In the config, the card, and wherever else a path of this machine could hide."""
    folder = tmp_path / "adapter"
    model, _ = make_adapter(folder)
    assert (
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"] == PUBLIC_ID
    )
    assert f"base_model: {PUBLIC_ID}" in (folder / "README.md").read_text(encoding="utf-8")
    assert f"base_model:adapter:{PUBLIC_ID}" in (folder / "README.md").read_text(encoding="utf-8")
    model.merge_and_unload().save_pretrained(folder)
    assert not any(str(small_default.parent).encode() in path.read_bytes() for path in folder.iterdir())


def test_a_tokenizer_names_the_default_model_as_the_hub_does(tokenizer, tmp_path):
    assert tokenizer.name_or_path == PUBLIC_ID
    tokenizer.save_pretrained(tmp_path)
    here = str(cache.cache_dir()).encode()
    assert not any(here in path.read_bytes() for path in tmp_path.iterdir())


def test_an_adapter_of_a_users_own_model_names_its_folder(small, tmp_path):
    model = get_peft_model(loading.load_model(str(small), device="cpu"), LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"] == str(
        small
    )


def test_an_adapter_travels_to_a_machine_with_a_hub(small_default, no_hub, tmp_path):
    """`AutoPeftModel` finds the base model by the name in the adapter; a cache of the hub stands for the hub."""
    _, expected = make_adapter(tmp_path / "adapter")
    repository = tmp_path / "hub" / f"models--{PUBLIC_ID.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    (repository / "snapshots").mkdir()
    small_default.rename(repository / "snapshots" / ("0" * 40))  # and the folder of this machine is gone
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", cache_dir=tmp_path / "hub")
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, expected)


def test_an_adapter_travels_to_a_machine_without_a_hub(small_default, no_hub, tmp_path, monkeypatch):
    """By either name of the default model, which lies elsewhere there."""
    _, expected = make_adapter(tmp_path / "adapter")
    elsewhere = small_default.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(cache, "default_model_dir", lambda: elsewhere)
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))[
        "base_model_name_or_path"
    ]
    for name in (named, cache.NAME):
        base = loading.load_model(name, precision="fp32", device="cpu")
        with torch.no_grad():
            assert torch.equal(PeftModel.from_pretrained(base, tmp_path / "adapter")(IDS).logits, expected)


def test_saving_an_adapter_without_a_network_is_silent(small, tmp_path):
    """PEFT asks the hub about the base model's vocabulary, and goes on without an answer. So do we."""
    code = f"""
from pathlib import Path
from course_utils import loading
from course_utils.loading import cache
from peft import LoraConfig, get_peft_model
cache.default_model_dir = lambda: Path({str(small)!r})
model = get_peft_model(loading.load_model(device="cpu"), LoraConfig(target_modules=["q_proj"]))
model.save_pretrained({str(tmp_path)!r})
"""
    nowhere = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "adapter_model.safetensors").is_file()


@pytest.fixture
def qlora():
    base = loading.load_model(precision="nf4", compute_dtype=torch.float32, device="cpu")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights="gaussian"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)  # so that A has a gradient, and merging has an effect
    return model


def gradient(model, examples) -> torch.Tensor:
    """All adapter gradients as one vector; zeros where the backward pass never arrives, as behind a repacked layer."""
    model.train()
    model.zero_grad()
    batches.supervised_loss(model, batches.collate(examples)).backward()
    trainable = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trainable])


def test_4_bit_training_survives_generation(qlora, tokenizer, examples):
    """The trap of AVX512-BF16 CPUs; on other CPUs this holds anyway, and it must keep holding."""
    before = gradient(qlora, examples)
    evaluation.generate(qlora, tokenizer, [chat.question("Hello?")], max_new_tokens=4)
    with torch.no_grad():
        qlora.eval()(torch.tensor([examples[0]["input_ids"]]))
    after = gradient(qlora, examples)
    assert cosine_similarity(before, after, dim=0) > 0.999
    assert after.norm() / before.norm() == pytest.approx(1, abs=1e-3)


def test_4_bit_layers_never_enter_the_inference_only_kernel(qlora):
    """What the fix does, checked on any CPU: no layer may take the path that repacks its weight."""
    layers = [m for m in qlora.modules() if isinstance(m, Linear4bit)]
    assert len(layers) == 210
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


@pytest.mark.skipif(not HAS_TRAP, reason="this CPU has no AVX512-BF16, so bitsandbytes never repacks weights here")
def test_without_the_fix_this_cpu_ruins_gradients(qlora, examples):
    for layer in qlora.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = True
    before = gradient(qlora, examples)
    with torch.no_grad():
        qlora.eval()(torch.tensor([examples[0]["input_ids"]]))
    assert cosine_similarity(before, gradient(qlora, examples), dim=0) < 0.9


def test_4_bit_save_and_reload_after_an_eval_forward(qlora, examples, tmp_path):
    ids = torch.tensor([examples[0]["input_ids"]])
    base = qlora.unload()
    with torch.no_grad():
        expected = base.eval()(ids).logits
        base.save_pretrained(tmp_path)
        reloaded = loading.load_model(str(tmp_path), precision="nf4", compute_dtype=torch.float32, device="cpu")
        assert torch.equal(reloaded(ids).logits, expected)


def test_4_bit_merge_after_an_eval_forward_is_sane(qlora, examples, tmp_path):
    """Merged into dequantized weights, after an eval forward, an adapter does what it did beside the packed ones."""
    expected = evaluation.nll(qlora, examples).mean
    qlora.save_pretrained(tmp_path)
    dequantized = qlora.unload().dequantize()
    merged = PeftModel.from_pretrained(dequantized, tmp_path).merge_and_unload()
    assert evaluation.nll(merged, examples).mean == pytest.approx(expected, abs=0.02)


def test_data_loaders_name_file_line_and_field(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    (tmp_path / "passages.jsonl").write_text(
        '{"id": "a", "kind": "news", "text": "fine"}\n{"id": "b", "kind": "news"}\n', encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"passages.jsonl, line 2, field 'text'"):
        datafiles.load_passages()


def test_unknown_task_split_and_table_name_the_choices():
    with pytest.raises(ValueError, match="dates"):
        datafiles.load_task("poems", "train")
    with pytest.raises(ValueError, match="train, validation or test"):
        datafiles.load_task("dates", "dev")
    with pytest.raises(ValueError, match="train, validation or test"):
        datafiles.load_conversations(split="dev")
    with pytest.raises(ValueError, match="Unknown table"):
        datafiles.load_figures("nothing")
