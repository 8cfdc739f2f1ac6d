"""Device, formats and profiles."""

import importlib
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from course_utils import datafiles, loading, machine, memory
from course_utils.core.files import ROOT
from course_utils.loading.cache import NAME


@pytest.fixture
def pretend(monkeypatch):
    """Make torch see other hardware: `pretend(gpus, capability)`."""

    def see(
        gpus: int, capability: tuple[int, int] | None, built: tuple[str, ...] = ("sm_75", "sm_80", "sm_90")
    ) -> None:
        monkeypatch.delenv("COURSE_PROFILE", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Pretended GPU")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
        machine._has_kernels.cache_clear()
        machine._say.cache_clear()

    return see


def test_profile_by_name_and_by_environment(monkeypatch):
    assert machine.profile("t4").precision == "fp16"
    monkeypatch.setenv("COURSE_PROFILE", "a100")
    assert machine.profile().name == "a100"


def test_unknown_profile_names_the_choices(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "tpu")
    with pytest.raises(ValueError, match=r"'tpu'.*cpu, laptop, t4, a100, multi-gpu"):
        machine.profile()


@pytest.mark.parametrize(
    ("gpus", "capability", "name", "precision"),
    [
        (0, None, "cpu", "fp32"),
        (1, (7, 5), "t4", "fp16"),
        (2, (7, 5), "t4", "fp16"),  # Kaggle's two T4s: bf16 would be emulated
        (1, (8, 0), "a100", "bf16"),
        (2, (9, 0), "a100", "bf16"),
    ],
)
def test_profile_follows_the_hardware(pretend, gpus, capability, name, precision):
    pretend(gpus, capability)
    assert (machine.profile().name, machine.profile().precision) == (name, precision)


@pytest.mark.parametrize(
    ("gpus", "capability", "built", "said"),
    [
        (1, (7, 5), "sm_75", ["no bf16 of its own, so the profile is t4, which computes in fp16"]),
        (2, (7, 5), "sm_75", ["2 GPUs are here, and a notebook uses one.*accelerate launch", "so the profile is t4"]),
        (1, (6, 0), "sm_75", ["no code for the GPU Pretended GPU.*so the CPU is used"]),  # a P100
        (1, (8, 0), "sm_80", []),
    ],
)
def test_what_a_machine_cannot_do_is_said_once(pretend, capsys, gpus, capability, built, said):
    pretend(gpus, capability, (built,))
    for _ in range(2):
        machine.profile()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said)
    assert all(re.search(words, line) for words, line in zip(said, lines, strict=True)), lines


def test_processes_of_torchrun_are_not_told_of_the_other_gpus(pretend, capsys, monkeypatch):
    pretend(2, (8, 0))
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert machine.profile().name == "a100"
    assert capsys.readouterr().err == ""


def test_cpu_profile_keeps_models_off_the_gpu(pretend, monkeypatch):
    importlib.import_module("bitsandbytes")  # while torch says what it was built for
    pretend(1, (8, 0))
    assert machine.device() == "cuda"
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    assert machine.device() == "cpu"
    assert loading.load_model(precision="fp32").device.type == "cpu"


@pytest.mark.parametrize(
    ("capability", "built", "device"),
    [
        ((6, 0), ["sm_75", "sm_80"], "cpu"),  # a P100 under today's torch
        ((7, 5), ["sm_75", "sm_80"], "cuda"),
        ((8, 9), ["sm_75", "sm_80", "sm_86"], "cuda"),  # code for 8.6 runs on 8.9
        ((8, 0), ["sm_75", "sm_86"], "cpu"),  # code for 8.6 does not run on 8.0
        ((12, 0), ["sm_90"], "cpu"),
        ((12, 0), ["sm_90", "compute_90"], "cuda"),  # portable code is translated
        ((9, 0), ["sm_90a"], "cuda"),
        ((9, 4), ["gfx942"], "cuda"),  # AMD's names say nothing of this
    ],
)
def test_a_gpu_that_torch_has_no_code_for_is_left_alone(pretend, capsys, capability, built, device):
    pretend(1, capability, tuple(built))
    assert [machine.device(), machine.device()] == [device, device]
    said = capsys.readouterr().err
    assert said.count("has no code for the GPU Pretended GPU") == (device == "cpu"), "once"
    assert machine.profile().name == ("cpu" if device == "cpu" else "t4" if capability < (8, 0) else "a100")


def test_each_process_of_torchrun_has_its_own_gpu(pretend, monkeypatch):
    pretend(2, (8, 0))
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert machine.device() == "cuda"
    assert taken == []
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert machine.device() == "cuda"
    assert taken == [1]


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"architecture": "aarch64", "bf16": True}, torch.bfloat16),
    ],
)
def test_cpu_without_native_bf16_gets_fp32(monkeypatch, instructions, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    monkeypatch.setattr(machine, "_bf16_pays", lambda: True)
    assert machine.fast_dtype("cpu") == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.25, torch.bfloat16), (0.9, torch.float32), (1.9, torch.float32)],
    ids=["AMX", "a hair faster", "AVX512-BF16 of a processor whose AMX is hidden"],
)
def test_native_bf16_is_taken_where_it_is_faster(monkeypatch, seconds, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(machine, "_seconds", lambda dtype: seconds if dtype == torch.bfloat16 else 1.0)
    machine._bf16_pays.cache_clear()
    assert machine.fast_dtype("cpu") == expected
    machine._bf16_pays.cache_clear()


def test_a_matrix_product_is_timed_in_each_format():
    assert 0 < machine._seconds(torch.float32) < 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_memory_is_kept():
    """In a process of its own: what a freed 200 MB tensor took stays resident; not without the call, or where it is
    scarce."""
    code = (
        "import psutil, torch; from course_utils import machine; machine.ENOUGH_TO_KEEP = {}; {}; "
        "big = torch.ones(50_000_000); del big; print(psutil.Process().memory_info().rss)"
    )
    keep = "machine.keep_freed_memory()"
    kept, *given_back = (
        int(subprocess.run([sys.executable, "-c", code.format(*how)], capture_output=True, check=True).stdout)
        for how in ((0, keep), (0, "pass"), (10**15, keep))
    )
    assert kept - max(given_back) > 150e6


def test_older_torch_cannot_tell_and_gets_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert machine.fast_dtype("cpu") == torch.float32


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float16), ((8, 6), torch.bfloat16)])
def test_t4_gets_fp16(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert machine.fast_dtype("cuda") == expected


def test_a_profile_has_its_own_model_unless_the_environment_names_another(monkeypatch):
    monkeypatch.delenv("COURSE_MODEL", raising=False)
    assert [name for name in machine.PROFILES if machine.profile(name).model == NAME] == ["cpu", "laptop"]
    monkeypatch.setenv("COURSE_MODEL", " ")
    assert machine.profile("cpu").model == NAME
    monkeypatch.setenv("COURSE_MODEL", "owner/name")
    assert machine.profile("cpu") == replace(machine.PROFILES["cpu"], model="owner/name")


LARGER = [profile for profile in machine.PROFILES.values() if profile.gpu_gb]


def planned(profile: machine.Profile) -> memory.Plan:
    """One step of notebook 04 with the profile's model, which the planner knows by a shorter name."""
    model = profile.model.partition("/")[2].removesuffix("-Instruct")
    return memory.plan(
        model, method="qlora", micro_batch=profile.batch_size, length=profile.max_length, gpu_gb=profile.gpu_gb
    )


@pytest.mark.parametrize("profile", LARGER, ids=lambda profile: profile.name)
def test_the_model_of_a_profile_is_worth_its_memory(profile):
    """By the planner's arithmetic: it fits, and takes more than half of the GPU."""
    found = planned(profile)
    assert found.fits, found
    assert found.peak > 0.5 * profile.gpu_gb * 1e9, found


def test_what_a_notebook_prints_of_a_profile_is_what_concerns_its_cells():
    assert str(machine.PROFILES["cpu"]) == (
        "Profile(name='cpu', precision='fp32', max_length=96, batch_size=8, steps=25, model='SmolLM2-135M-Instruct')"
    )


@pytest.mark.parametrize("profile", machine.PROFILES.values(), ids=lambda profile: profile.name)
def test_no_profile_goes_over_a_task_many_times(profile):
    """Twelve passes over the same few hundred examples made the model worse than before."""
    examples = len(datafiles.load_task("dates", "train"))
    assert profile.steps * profile.batch_size / examples <= 2


def modules_after(statement: str) -> set[str]:
    """The modules that are loaded after a statement in a fresh Python."""
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split())


def test_import_brings_no_torch():
    """Of the package, and of what runs before anything is installed."""
    assert modules_after("from course_utils import bootstrap").isdisjoint({"torch", "transformers", "pandas", "numpy"})


def test_a_model_that_is_there_is_found_without_torch():
    """`make model` runs before every other command, so it has to be quick."""
    found = modules_after("import runpy; runpy.run_module('course_utils.loading', run_name='__main__')")
    assert found.isdisjoint({"torch", "transformers"})


def test_only_notebook_04_needs_trl_and_datasets():
    rooms = "batches, chat, claims, datafiles, evaluation, loading, machine, memory, plots, studies, training"
    assert modules_after(f"from course_utils import {rooms}").isdisjoint({"trl", "datasets"})
    assert {"trl", "datasets"} <= modules_after("from course_utils.training import sft_trainer")


def test_describe_names_versions_and_instruction_set(monkeypatch):
    assert f"torch {torch.__version__.partition('+')[0]}" in machine.describe()
    assert torch.backends.cpu.get_cpu_capability() in machine.describe()
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name == "trl" else name)
    assert "trl" not in machine.describe(), "notebooks 01 to 03, and studies, do without it"
    for found, words in (({"amx_bf16": True}, " with AMX bf16)"), ({"avx512_bf16": True}, " with native bf16)")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert words in machine.describe()


def test_environment_of_the_tests_is_the_cpu_profile():
    """Otherwise a machine with a GPU would compare its runs with outputs stored on a CPU."""
    assert os.environ["COURSE_PROFILE"] == "cpu"
