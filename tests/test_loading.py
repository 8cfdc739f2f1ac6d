"""The model in every precision, and 4-bit models that stay trainable after an eval-mode forward."""

import time

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cosine_similarity

from course_utils import chat, datafiles, evaluation, loading, memory, model_cache, training

HAS_TRAP = torch.cpu._is_avx512_bf16_supported()


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


def test_loads_in_under_three_seconds(model):
    start = time.perf_counter()
    loading.load_model(precision="fp32", device="cpu")
    assert time.perf_counter() - start < 3


def test_unknown_precision_names_the_choices():
    with pytest.raises(ValueError, match=r"'4bit'.*nf4-dq"):
        loading.load_model(precision="4bit")


def test_model_that_is_not_there_says_what_to_do():
    with pytest.raises(OSError, match=r"'nobody/nothing'.*path of a local folder.*HF_HUB_OFFLINE"):
        loading.load_model("nobody/nothing", revision="v1")
    with pytest.raises(OSError, match="nobody/nothing"):
        loading.load_tokenizer("nobody/nothing")


def test_any_local_folder_loads_through_the_same_function(model):
    again = loading.load_model(str(model_cache.default_model_dir()), precision="bf16", device="cpu")
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
    training.supervised_loss(model, training.collate(examples)).backward()
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
    monkeypatch.setattr(datafiles, "data_dir", lambda: tmp_path)
    (tmp_path / "passages.jsonl").write_text(
        '{"id": "a", "kind": "news", "text": "fine"}\n{"id": "b", "kind": "news"}\n'
    )
    with pytest.raises(ValueError, match=r"passages.jsonl, line 2, field 'text'"):
        loading.load_passages()


def test_unknown_task_split_and_table_name_the_choices():
    with pytest.raises(ValueError, match="dates"):
        loading.load_task("poems", "train")
    with pytest.raises(ValueError, match="train, validation or test"):
        loading.load_task("dates", "dev")
    with pytest.raises(ValueError, match="train, validation or test"):
        loading.load_conversations(split="dev")
    with pytest.raises(ValueError, match="Unknown table"):
        loading.load_figures("nothing")
