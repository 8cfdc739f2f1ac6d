"""Device, formats and profiles."""

import subprocess
import sys

import pytest
import torch

from course_utils import machine


def test_profile_by_name_and_by_environment(monkeypatch):
    assert machine.profile("t4").precision == "fp16"
    monkeypatch.setenv("COURSE_PROFILE", "a100")
    assert machine.profile().name == "a100"


def test_unknown_profile_names_the_choices(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "tpu")
    with pytest.raises(ValueError, match=r"'tpu'.*cpu, laptop, t4, a100, multi-gpu"):
        machine.profile()


@pytest.mark.parametrize(
    ("gpus", "capability", "expected"),
    [(0, None, "cpu"), (1, (7, 5), "t4"), (1, (8, 0), "a100"), (2, (9, 0), "multi-gpu")],
)
def test_profile_follows_the_hardware(monkeypatch, gpus, capability, expected):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    assert machine.profile().name == expected


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(False, False, torch.float32), (True, False, torch.bfloat16), (False, True, torch.bfloat16)],
)
def test_cpu_without_native_bf16_gets_fp32(monkeypatch, avx512_bf16, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert machine.fast_dtype("cpu") == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float16), ((8, 6), torch.bfloat16)])
def test_t4_gets_fp16(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert machine.fast_dtype("cuda") == expected


def test_import_is_cheap_and_brings_no_torch():
    code = "import sys, time; start = time.perf_counter(); import course_utils; seconds = time.perf_counter() - start"
    code += "; print(seconds, 'torch' in sys.modules)"
    seconds, torch_there = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert float(seconds) < 1
    assert torch_there == "False"


def test_describe_names_versions():
    assert torch.__version__ in machine.describe()
