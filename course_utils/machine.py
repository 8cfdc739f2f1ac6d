"""What am I running on? Device, the number format that is fast here, and the profile that sets sizes and steps."""

import contextlib
import ctypes
import functools
import os
import platform
import re
import sys
import timeit
from dataclasses import dataclass, field, replace
from importlib import metadata
from importlib.util import find_spec

import psutil
import torch

ENOUGH_TO_KEEP = 16 * 10**9  # bytes that are free


@dataclass(frozen=True)
class Profile:
    """Sizes and steps that suit one kind of machine; the same notebook cells run with any of them.

    `precision` and `model` are arguments of `loading.load_model`, `max_length` is in tokens, `batch_size` in sequences.
    `steps` is for the small tasks of notebooks 02 and 03; how long notebook 04 trains follows from its data. `model` is
    read by notebook 04 alone, in 4 bits; `COURSE_MODEL` in the environment names another one. It is one that asks
    nobody's permission, and whose QLoRA at these sizes fits, by `memory.plan`, into `gpu_gb` (GB of 10^9 bytes) of one
    GPU; see `loading.with_model`.
    """

    name: str
    precision: str
    max_length: int
    batch_size: int
    steps: int
    model: str = "SmolLM2-135M-Instruct"
    gpu_gb: float | None = field(default=None, repr=False)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("cpu", "fp32", max_length=96, batch_size=8, steps=25),
        Profile("laptop", "fp32", max_length=256, batch_size=8, steps=60),
        Profile("t4", "fp16", 512, 4, 120, "HuggingFaceTB/SmolLM2-1.7B-Instruct", gpu_gb=15),
        Profile("a100", "bf16", 512, 4, 120, "Qwen/Qwen2.5-7B-Instruct", gpu_gb=39),
        Profile("multi-gpu", "bf16", 512, 2, 120, "Qwen/Qwen2.5-7B-Instruct", gpu_gb=24),  # of each GPU
    )
}


def device() -> str:
    """The device that models are put on: "cuda", "mps" or "cpu"; `COURSE_PROFILE=cpu` keeps them off the GPU.

    Under torchrun "cuda" is the GPU of this process.
    """
    if os.environ.get("COURSE_PROFILE") == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        if "LOCAL_RANK" in os.environ:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return "cuda" if _has_kernels(torch.cuda.get_device_capability()) else "cpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def _has_kernels(capability: tuple[int, int]) -> bool:
    """Whether this torch can run on a GPU of that compute capability; if not, a sentence on stderr, once.

    Code for sm_75 runs on 7.5 and later 7.x; portable code (compute_75) is translated for any later GPU.
    """
    found = [re.fullmatch(r"(sm|compute)_(\d+)[af]?", entry) for entry in torch.cuda.get_arch_list()]
    built = [(match[1], divmod(int(match[2]), 10)) for match in found if match]
    if not built:  # other makers' GPUs have other names
        return True
    if any(made <= capability and (kind == "compute" or made[0] == capability[0]) for kind, made in built):
        return True
    _say(
        f"torch {torch.__version__} has no code for the GPU {torch.cuda.get_device_name()} (compute capability "
        f"{capability[0]}.{capability[1]}), so the CPU is used. To use the GPU, install a build of torch made for it."
    )
    return False


@functools.cache
def _say(sentence: str) -> None:
    """On stderr, once in a process."""
    print(sentence, file=sys.stderr)


def has_native_bf16(target: str | None = None) -> bool:
    """Whether bfloat16 arithmetic is done by the hardware rather than emulated.

    A GPU needs compute capability 8 (Ampere); `torch.cuda.is_bf16_supported()` also counts emulation, so a T4 would
    pass it. A CPU needs AVX512-BF16, AMX or ARM's BF16 instructions: without them a bf16 training step here takes about
    30 times as long. torch before 2.11 cannot say, and counts as without. Native need not be fast: see `fast_dtype`.
    """
    target = target or device()
    if target == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if target == "cpu":
        found = getattr(torch.cpu, "get_capabilities", dict)()
        return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def fast_dtype(target: str | None = None) -> torch.dtype:
    """The number format that computes fastest on `target`: on a GPU bf16 where it is native, else fp16.

    On a CPU bf16, if it has instructions for it that do multiply faster than those for fp32; else fp32.
    """
    target = target or device()
    if target == "cpu":
        return torch.bfloat16 if has_native_bf16("cpu") and _bf16_pays() else torch.float32
    if has_native_bf16(target):
        return torch.bfloat16
    return torch.float16 if target == "cuda" else torch.float32


@functools.cache
def _bf16_pays() -> bool:
    """By a matrix product of the default model's size: AMX is four times as fast as fp32, AVX512-BF16 can be slower."""
    return 1.2 * _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    """For 512 rows through a 576 x 1536 matrix, the best of five; a few milliseconds each."""
    rows, matrix = torch.ones(512, 576, dtype=dtype), torch.ones(576, 1536, dtype=dtype)
    return min(timeit.repeat(lambda: rows @ matrix, number=1, repeat=5))


def profile(name: str | None = None) -> Profile:
    """The profile called `name`, or `COURSE_PROFILE`, or the one that fits this machine; with `COURSE_MODEL`, if set.

    Raises:
        ValueError: there is no profile of that name.
    """
    name = name or os.environ.get("COURSE_PROFILE") or _detect()
    if name not in PROFILES:
        raise ValueError(f"Unknown profile {name!r} (argument or COURSE_PROFILE); choose from {', '.join(PROFILES)}.")
    model = os.environ.get("COURSE_MODEL", "").strip()
    return replace(PROFILES[name], model=model) if model else PROFILES[name]


def _detect() -> str:
    """By the device alone: a second GPU changes nothing for a notebook, which is one process and uses one."""
    here = device()
    if here == "cuda":
        if torch.cuda.device_count() > 1 and "LOCAL_RANK" not in os.environ:
            _say(
                f"{torch.cuda.device_count()} GPUs are here, and a notebook uses one of them. All of them train by "
                "`accelerate launch --config_file recipes/accelerate/ddp.yaml -m course_utils.training recipe.yaml`."
            )
        if not has_native_bf16():
            _say(
                f"{torch.cuda.get_device_name()} has no bf16 of its own, so the profile is t4, which computes in fp16."
            )
        return "a100" if has_native_bf16() else "t4"
    return "laptop" if here == "mps" or (os.cpu_count() or 1) >= 8 else "cpu"


def keep_freed_memory() -> None:
    """Have glibc keep the memory that is freed, for the next step's tensors; by default it goes back to the system.

    A training step then takes 0.8 to 0.9 of its time on a CPU. The process stays as large as it ever was, and on rows
    of many lengths it grows: to 7 GB in 48 steps of `recipes/guanaco.yaml`, to 10 GB in 150, where 5 GB do. So this is
    for commands that train, not where a notebook measures memory, and nothing is done where less than 16 GB are free.
    No other C library has it.
    """
    if psutil.virtual_memory().available < ENOUGH_TO_KEEP:
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
        for option in (trim_threshold, mmap_threshold):
            libc.mallopt(option, 2**31 - 1)


def _bf16_units() -> str:
    """What multiplies bfloat16 on this CPU: AMX has units for whole tiles, and is several times as fast as the rest."""
    return "AMX bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "native bf16"


def describe() -> str:
    """One line on the hardware and the main libraries, for records and bug reports."""
    here = torch.cuda.get_device_name() if device() == "cuda" else f"{platform.machine()} CPU"
    flags = torch.backends.cpu.get_cpu_capability() + (f" with {_bf16_units()}" if has_native_bf16("cpu") else "")
    names = ("torch", "transformers", "peft", "bitsandbytes", "trl")  # the last one is there for notebook 04 only
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names if find_spec(name))
    return f"{here} ({flags}), {torch.get_num_threads()} threads, Python {platform.python_version()}, {versions}"
