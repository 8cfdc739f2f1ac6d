"""What am I running on? Device, the number format that is fast here, and the profile that sets sizes and steps."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata

import torch


@dataclass(frozen=True)
class Profile:
    """Sizes and steps that suit one kind of machine; the same notebook cells run with any of them.

    `precision` is an argument of `loading.load_model`, `max_length` is in tokens, `batch_size` in sequences.
    """

    name: str
    device: str
    precision: str
    max_length: int
    batch_size: int
    steps: int


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("cpu", "cpu", "fp32", max_length=96, batch_size=8, steps=25),
        Profile("laptop", "auto", "fp32", max_length=256, batch_size=8, steps=60),
        Profile("t4", "cuda", "fp16", max_length=512, batch_size=8, steps=120),
        Profile("a100", "cuda", "bf16", max_length=512, batch_size=16, steps=300),
        Profile("multi-gpu", "cuda", "bf16", max_length=512, batch_size=16, steps=300),
    )
}


def device() -> str:
    """The device that models are put on: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def has_native_bf16(target: str | None = None) -> bool:
    """Whether bfloat16 arithmetic is done by the hardware rather than emulated.

    A GPU needs compute capability 8 (Ampere); `torch.cuda.is_bf16_supported()` also counts emulation, so a T4 would
    pass it. An x86 CPU needs AVX512-BF16 or AMX: without them a bf16 training step here takes about 30 times as long.
    """
    target = target or device()
    if target == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if target == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def fast_dtype(target: str | None = None) -> torch.dtype:
    """The number format that computes fastest on `target`: bf16 where it is native, else fp16 on a GPU, else fp32."""
    target = target or device()
    if has_native_bf16(target):
        return torch.bfloat16
    return torch.float16 if target == "cuda" else torch.float32


def profile(name: str | None = None) -> Profile:
    """The profile called `name`, or `COURSE_PROFILE`, or the one that fits this machine.

    Raises:
        ValueError: there is no profile of that name.
    """
    name = name or os.environ.get("COURSE_PROFILE") or _detect()
    if name not in PROFILES:
        raise ValueError(f"Unknown profile {name!r} (argument or COURSE_PROFILE); choose from {', '.join(PROFILES)}.")
    return PROFILES[name]


def _detect() -> str:
    here = device()
    if here == "cuda":
        if torch.cuda.device_count() > 1:
            return "multi-gpu"
        return "a100" if has_native_bf16() else "t4"
    return "laptop" if here == "mps" or (os.cpu_count() or 1) >= 8 else "cpu"


def describe() -> str:
    """One line on the hardware and the main libraries, for records and bug reports."""
    here = torch.cuda.get_device_name() if device() == "cuda" else f"{platform.machine()} CPU"
    flags = torch.backends.cpu.get_cpu_capability() + (" with native bf16" if has_native_bf16("cpu") else "")
    names = ("torch", "transformers", "peft", "bitsandbytes", "trl")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return f"{here} ({flags}), {torch.get_num_threads()} threads, Python {platform.python_version()}, {versions}"
