"""The bench: it times all of what it says and nothing else, and its page shows its records."""

import os
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from course_utils import datafiles, memory
from course_utils.core.files import ROOT
from course_utils.course import marks
from course_utils.loading.precisions import quantization_config
from tests import paged_process
from tests.bench import methods, peaks, profile, random_weights, report, speed


class Turns:
    """The end of a pipe that a worker holds: it is told to go on whenever it asks."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, what: Any) -> None:
        self.sent.append(what)

    def recv(self) -> str:
        return "go"


@pytest.mark.slow
def test_a_worker_times_its_rounds_and_counts_every_token(tokenizer):
    recipe = replace(speed.CONVERSATIONS, steps=4, batch_size=2)
    talk = Turns()
    speed._work(recipe, talk)
    ready, *rounds, found = talk.sent
    assert ready == 0.0
    assert len(rounds) == 4 / speed.STEPS
    assert min(rounds) > 0
    examples = speed.some_conversations(tokenizer, recipe)
    assert len(examples) == 8
    assert found["tokens"] == sum(len(one["input_ids"]) for one in examples)
    assert found["supervised"] == sum(label != -100 for one in examples for label in one["labels"][1:])
    assert found["peak_bytes"] > 135e6 * 4, "the weights alone"


def test_ratios_are_to_the_variant_that_the_column_names():
    speeds = {"ours": 40.0, "stock_trl": 10.0, "plain_peft": 20.0}
    rows = [
        {"dtype": "fp32", "method": "lora", "variant": name, "tokens_per_second": found, "peak_bytes": 3e9}
        | {"supervised_tokens_per_second": found / 2}
        for name, found in speeds.items()
    ]
    (ours, *_) = report.bench_rows(pd.DataFrame(rows))
    assert ours == ["fp32", "lora", "ours", "40", "20", "3.0", "4.00", "2.00"]


def test_the_committed_bench_holds_every_variant_of_every_kind_on_one_machine():
    rows = pd.DataFrame(report.record("bench"))
    assert rows.machine.nunique() == 1
    kinds = {kind: set(found.variant) for kind, found in rows.groupby(["dtype", "method"])}
    assert kinds == dict.fromkeys(speed.KINDS, set(speed.VARIANTS))
    for row in rows.itertuples():
        assert len(row.round_seconds) == speed.ROUNDS
        if row.method == "lora" and row.variant != "stock_trl_tuned":
            assert row.heldout_nll == speed.heldout_nll(row.variant, row.dtype)


def test_the_committed_seconds_of_both_methods_are_whole_and_of_one_machine():
    rows = datafiles.load_figures("step_seconds")
    assert rows["machine"].nunique() == 1
    assert rows.groupby("compute_dtype")["round"].apply(list).to_dict() == dict.fromkeys(
        ("fp32", "bf16"), list(range(1, methods.ROUNDS + 1))
    )
    assert (rows[["LoRA", "QLoRA"]] > 0).all(axis=None)


@pytest.mark.parametrize("mark", report.PARTS)
def test_the_page_shows_the_records(mark):
    assert marks.between(report.HERE / "README.md", mark).strip() == report.PARTS[mark]().strip()


def test_a_profile_tells_the_optimizers_work_from_the_models():
    layer = nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(layer.parameters())
    with profiler(activities=[ProfilerActivity.CPU]) as found:
        layer(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
    groups = {event.name: set() for event in found.events()}
    for event in found.events():
        groups[event.name].add(profile.group_of(event))
    assert groups["aten::addmm"] == {"matrix products"}
    assert groups["aten::addcdiv_"] == {"optimizer"}
    assert "optimizer" in groups["aten::mul_"] or "optimizer" in groups["aten::mul"]


def test_arithmetic_and_exponents_equal_their_formulas():
    layer, values = nn.Linear(8, 16, bias=False), torch.randn(4, 8, requires_grad=True)
    counted = profile.flops(lambda batch: layer(batch).sum().backward(), values)
    assert counted == 3 * 2 * 4 * 8 * 16, "forward, gradient of the input, gradient of the matrix"
    assert profile.exponent((2, 4, 8), [1.0, 3.0, 12.0]) == pytest.approx(2.0)


def test_readme_quotes_the_ratios_of_the_record():
    ratios = {
        (line[0], line[1]): float(line[6]) for line in report.bench_rows(pd.DataFrame(report.record("bench")))[::4]
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{ratios['fp32', 'lora']:.1f} times the tokens per second of TRL's defaults in fp32" in text
    assert f"{ratios['bf16', 'qlora']:.1f} times with QLoRA" in text


def test_a_plan_stands_beside_a_measured_step(tmp_path):
    """A tiny model whose logits are large enough to be seen in the memory of a process."""
    shape = {"vocab_size": 8192, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2}
    LlamaForCausalLM(LlamaConfig(num_attention_heads=4, **shape)).save_pretrained(tmp_path)
    case = peaks.Case("lora", micro_batch=4, length=256, checkpointing=False)
    (row,) = peaks.main(str(tmp_path), [case], given_back=True).to_dict("records")
    assert row["planned_bytes"] > 16 * 4 * 256 * 8192, "the logits and what their loss needs"
    assert 0.5 < row["measured_bytes"] / row["planned_bytes"] < 2
    assert row["error_percent"] == pytest.approx(100 * (row["planned_bytes"] / row["measured_bytes"] - 1), abs=0.05)
    assert {"method", "micro_batch", "length", "checkpointing", "given_back", "model", "machine"} <= set(row)
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ, "it is set for the process that measures, alone"


def test_every_case_is_on_record_with_memory_kept_and_given_back():
    rows = pd.read_csv(peaks.HERE / "peaks.csv")
    assert [tuple(row) for row in rows[["method", *peaks.KEYS]].itertuples(index=False)] == [
        (case.method, case.micro_batch, case.length, case.checkpointing) for case in peaks.CASES
    ] * 2
    assert rows["given_back"].tolist() == [False] * len(peaks.CASES) + [True] * len(peaks.CASES)
    errors = 100 * (rows["planned_bytes"] / rows["measured_bytes"] - 1)
    assert rows["error_percent"].tolist() == pytest.approx(errors.tolist(), abs=0.051)


def test_peaks_are_measured_for_every_method_batch_and_length_with_and_without_checkpointing():
    assert len(set(peaks.CASES)) == len(peaks.CASES) >= 8
    assert {case.method for case in peaks.CASES} == {"full", "lora", "qlora"}
    assert {(case.micro_batch, case.checkpointing) for case in peaks.CASES} == {
        (1, False),
        (1, True),
        (4, False),
        (4, True),
    }


@pytest.fixture(scope="module")
def small() -> LlamaConfig:
    shape = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    return LlamaConfig(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, **shape)


def test_random_weights_are_quantized_as_transformers_does_it(small, tmp_path):
    """The same layers, and the same bytes of each kind, as of weights that are read from a file."""
    random_weights.random_model(small, "bf16", "cpu").save_pretrained(tmp_path)
    options = {"quantization_config": quantization_config("nf4-dq", torch.bfloat16), "device_map": "cpu"}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, **options).requires_grad_(False)
    ours = random_weights.random_model(small, "nf4-dq", "cpu")
    kinds = [{n: (p.shape, p.dtype) for n, p in model.named_parameters()} for model in (ours, theirs)]
    assert kinds[0] == kinds[1]
    assert memory.ledger(ours).equals(memory.ledger(theirs))
    assert memory.count_parameters(ours) == memory.count_parameters(theirs)
    buffers = [dict(model.named_buffers()) for model in (ours, theirs)]
    assert all(torch.equal(buffers[0][name], buffers[1][name]) for name in buffers[1])
    for name, weight in ours.named_parameters():
        if weight.dtype == torch.bfloat16:
            spread = 0 if "norm" in name else small.initializer_range
            assert weight.float().std().item() == pytest.approx(spread, rel=0.1), name


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "lora"},
        {"method": "qlora", "adapter_precision": "bf16", "optimizer": "paged_adamw", "checkpointing": True},
    ],
    ids=["lora", "qlora"],
)
def test_steps_on_random_weights_train_the_adapter_alone(small, fields):
    settings = memory.Settings(model=small, r=4, length=32, micro_batch=2, **fields)
    model = random_weights.prepared(settings, "cpu")
    trained = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 3 * 7 * 2
    assert set(trained.values()) == {torch.bfloat16 if "adapter_precision" in fields else torch.float32}
    assert all("lora_" in name for name in trained)
    losses, _ = random_weights.train(settings, "cpu")
    assert len(losses) == 3
    assert losses[2] < losses[1] < losses[0]


def test_a_plan_on_a_gpu_is_recorded_with_its_settings_and_losses(monkeypatch, capsys):
    monkeypatch.setattr(random_weights, "train", lambda settings, device: ([3.0, 2.0, 1.0], 50_000_000_000))
    (row,) = peaks.main_gpu([peaks.LLAMA_65B]).to_dict("records")
    assert (
        row["planned_bytes"]
        == memory.plan(
            "LLaMA-65B",
            **{
                name: row[name] for name in ("method", "r", "adapter_precision", "optimizer", "length", "checkpointing")
            },
        ).peak
    )
    assert row["error_percent"] == pytest.approx(100 * (row["planned_bytes"] / 50e9 - 1), abs=0.05)
    assert (row["first_loss"], row["last_loss"]) == (3.0, 1.0)
    assert "LLaMA-65B" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("kind", ["AdamW", "PagedAdamW"])
def test_a_run_with_a_spike_is_a_plain_loop(kind):
    found = paged_process.train(kind, 16, (4, 32, 4), "cpu")
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Linear(16, 16) for _ in range(paged_process.LAYERS)))
    optimizer, losses = torch.optim.AdamW(layers.parameters(), lr=1e-4), []
    for length in (4, 32, 4):
        x = torch.randn(length, 16)
        loss = nn.functional.mse_loss(layers(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert found["losses"] == pytest.approx(losses, rel=1e-5)
    assert found["weights"] == pytest.approx(sum(p.sum().item() for p in layers.parameters()), rel=1e-5)
    assert found["paged"] == 0  # there are no pages on a CPU
