"""The bench: it times all of what it says and nothing else, and its page shows its records."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils.core.files import ROOT
from course_utils.course import marks
from tests.bench import peaks, profile, report, speed


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
    (row,) = peaks.main(str(tmp_path), [case]).to_dict("records")
    assert row["planned_bytes"] > 16 * 4 * 256 * 8192, "the logits and what their loss needs"
    assert 0.5 < row["measured_bytes"] / row["planned_bytes"] < 2
    assert row["error_percent"] == pytest.approx(100 * (row["planned_bytes"] / row["measured_bytes"] - 1), abs=0.05)
    assert {"method", "micro_batch", "length", "checkpointing", "model", "machine"} <= set(row)


def test_peaks_are_measured_for_every_method_batch_and_length_with_and_without_checkpointing():
    assert len(set(peaks.CASES)) == len(peaks.CASES) >= 8
    assert {case.method for case in peaks.CASES} == {"full", "lora", "qlora"}
    assert {(case.micro_batch, case.checkpointing) for case in peaks.CASES} == {
        (1, False),
        (1, True),
        (4, False),
        (4, True),
    }
