"""Bytes against closed forms and against what other libraries count."""

import gc
import subprocess
import sys
import weakref

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import loading, machine, memory


def tiny(device: str = "cpu") -> LlamaForCausalLM:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.device(device):
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, attn_implementation="eager", **shape))


def test_shared_storage_counts_once(model):
    tensor = torch.zeros(10, 10)
    assert memory.tensor_bytes([tensor, tensor[2:], tensor.T]) == 400
    assert memory.tensor_bytes([*model.parameters(), *model.buffers()]) == model.get_memory_footprint()


def test_meta_tensors_have_bytes_too():
    with torch.device("meta"):
        layers = nn.Sequential(nn.Linear(1000, 1000, bias=False), nn.Linear(1000, 1000, bias=False))
    assert memory.tensor_bytes(layers.parameters()) == 2 * 4 * 1000 * 1000


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_each_storage_counts_once_wherever_it_lies(device):
    """Views and ties share storage; tensors made on the fly do not, although Python may give them one address."""
    tensor = torch.zeros(1000, device=device)
    assert memory.tensor_bytes([tensor, tensor[10:], tensor.view(10, 100), nn.Parameter(tensor)]) == 4000
    assert memory.tensor_bytes(torch.zeros(1000, device=device) for _ in range(20)) == 20 * 4000


def test_activations_on_the_meta_device_are_those_of_the_cpu():
    """The question "would it fit?" is asked without memory for the answer."""
    kept = []
    for device in ("cpu", "meta"):
        model, ids = tiny(device), torch.ones(3, 17, dtype=torch.long, device=device)
        kept.append(memory.activation_bytes(model, lambda model=model, ids=ids: model(ids).logits))
    assert kept[0] == kept[1] > 2 * 4 * 3 * 17 * 128  # more than the gates of two layers


def test_activations_are_what_the_backward_pass_needs():
    """A linear layer keeps its input, and a sigmoid its output; weights are not activations, views count once."""
    model = nn.Sequential(nn.Linear(100, 50), nn.Sigmoid(), nn.Linear(50, 7))
    x = torch.randn(8, 100)
    assert memory.activation_bytes(model, lambda: model(x)) == 4 * 8 * (100 + 50)  # the sigmoid's output is kept once
    with torch.no_grad():
        assert memory.activation_bytes(model, lambda: model(x)) == 0


def test_what_is_thrown_away_within_the_forward_is_not_kept_for_the_backward_pass():
    model, x = nn.Linear(100, 50), torch.randn(8, 100)

    def forward() -> torch.Tensor:
        scale = model(x).exp().norm().detach()  # its graph is gone at once, with all that it kept
        return model(x) * scale

    assert memory.activation_bytes(model, forward) == 4 * (8 * 100 + 1)  # the input, and the scale


def reachable_bytes(output: torch.Tensor, model: nn.Module) -> int:
    """What the nodes of a graph say that they have saved, from the output on; counted without hooks."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    nodes, seen, found = [output.grad_fn], set(), {}
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for value in (inner for one in saved for inner in (one if isinstance(one, tuple) else (one,))):
            if isinstance(value, torch.Tensor) and value.dim():  # a factor that is a number is no saved tensor
                storage = value.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return sum(size for address, size in found.items() if address not in weights)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_activations_are_what_can_be_reached_from_the_loss(dora):
    """DoRA takes the norm of each updated matrix and throws away how it came about."""
    model = get_peft_model(tiny(), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_dora=dora))
    ids = torch.ones(3, 17, dtype=torch.long)
    kept = memory.activation_bytes(model, lambda: model(ids).logits)
    assert kept == reachable_bytes(model(ids).logits, model)


def test_counting_activations_frees_them():
    """The count must not keep the graph, or the model, in memory."""

    def count() -> weakref.ref:
        model = nn.Sequential(nn.Linear(100, 50), nn.Sigmoid(), nn.Linear(50, 7))
        assert memory.activation_bytes(model, lambda: model(torch.randn(8, 100)).exp()) > 0
        return weakref.ref(model[0].weight)

    weight = count()
    gc.collect()
    assert weight() is None


def test_full_training_with_adam_costs_16_bytes_per_parameter():
    layer = nn.Linear(100, 50, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(3, 100)).sum().backward()
    optimizer.step()
    table = memory.ledger(layer, optimizer)
    assert table["trainable weights"] == table["gradients"] == 4 * 5000
    assert table["optimizer states"] == 8 * 5000 + 4  # two moments, and Adam's step counter
    assert table["total"] == 16 * 5000 + 4


@pytest.mark.parametrize(("double", "bits"), [(False, 4 + 32 / 64), (True, 4 + 8 / 64 + 32 / (64 * 256))])
def test_4_bit_layer_has_the_bits_of_the_paper(double, bits):
    """QLoRA, section 3: 4.5 bits per parameter, and 4.127 with double quantization."""
    weight = bnb.nn.Params4bit(
        torch.randn(1024, 1024), requires_grad=False, compress_statistics=double, quant_type="nf4"
    )
    weight = weight.to("cpu")
    layer = nn.Module()
    layer.weight = weight
    table = memory.ledger(layer)
    tables = 16 * 4 + (256 * 4 + 4 if double else 0)  # code tables, and the mean that double quantization subtracts
    assert 8 * (table["total"] - tables) / 1024**2 == pytest.approx(bits, abs=1e-9)
    assert memory.count_parameters(layer) == 1024**2


def test_constants_are_what_get_memory_footprint_leaves_out():
    model = loading.load_model(precision="nf4", compute_dtype=torch.bfloat16, device="cpu")
    table = memory.ledger(model)
    assert table["total"] - table["quantization constants"] - model.get_memory_footprint() == pytest.approx(0, abs=4096)
    assert table["quantization constants"] == 106_168_320 / 64 * 4 + 210 * 64


def test_int8_rows_have_their_scales(tmp_path):
    """LLM.int8() keeps one float32 per output row, and moves it from the weight to the layer at the first forward."""
    tiny().save_pretrained(tmp_path)
    model = loading.load_model(str(tmp_path), precision="int8", device="cpu")
    rows = 2 * (4 * 64 + 2 * 128 + 64)  # per layer: q, k, v, o; gate and up; down
    assert memory.ledger(model)["quantization constants"] == 4 * rows
    model(torch.ones(1, 3, dtype=torch.long))
    assert memory.ledger(model)["quantization constants"] == 4 * rows


@pytest.fixture
def two_gpus(monkeypatch) -> dict[int, dict[str, int]]:
    """Two pretended GPUs; their counters are the test's to set."""
    gpus = {0: {"now": 100, "peak": 100}, 1: {"now": 50, "peak": 50}}
    monkeypatch.setattr(machine, "device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda gpu=0: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda gpu=0: gpus[gpu]["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda gpu=0: gpus[gpu]["peak"])
    return gpus


def test_measure_adds_up_all_gpus(two_gpus):
    with memory.measure() as peak:
        two_gpus[0]["peak"], two_gpus[1]["peak"] = 130, 500
    assert (peak.before, peak.peak, peak.added) == (150, 630, 480)


def test_measure_knows_the_peak_of_a_block_that_fails(two_gpus):
    """Out of memory is when the number is wanted most."""
    measured = []

    def fails() -> None:
        with memory.measure() as peak:
            measured.append(peak)
            two_gpus[0]["peak"] = 900
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        fails()
    assert measured[0].peak == 950


def test_measure_looks_where_the_course_puts_its_models(two_gpus, monkeypatch):
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    with memory.measure() as peak:
        pass
    assert peak.before > 10e6  # the resident memory of this process, not the pretended 150 bytes


def test_measure_sees_what_a_block_allocates():
    """In a fresh process: here, memory that earlier tests freed would be used again, and nothing would grow."""
    code = """
import time
import torch
from course_utils import memory
with memory.measure() as nothing:
    pass
with memory.measure() as peak:
    big = torch.ones(50_000_000)  # 200 MB, touched
    time.sleep(0.1)  # memory is sampled: the peak has to last longer than an interval
    del big
print(nothing.added, peak.added)
"""
    nothing, added = map(int, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert nothing < 20e6
    assert 190e6 < added < 260e6


def test_table_leaves_out_empty_rows():
    text = memory.as_table(MB=memory.ledger(nn.Linear(1000, 1000, bias=False)))
    assert "optimizer" not in text
    assert "4.0" in text
