"""How does a name become a model that is safe to train, or its tokenizer?"""

import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import machine
from course_utils.core import hub
from course_utils.loading import cache
from course_utils.loading.precisions import DTYPES, PRECISIONS, QUANTIZED, quantization_config, stored_precision
from course_utils.loading.restored import check_restored

DEFAULT = (cache.NAME, cache.PUBLIC_ID)

# transformers would ask a service of the hub to convert weights that are no safetensors, and load what it sends
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
transformers.utils.logging.disable_progress_bar()  # bars for reading local files; downloads keep their own


def load_model(
    model_id: str = cache.NAME,
    precision: str = "auto",
    *,
    revision: str | None = None,
    compute_dtype: torch.dtype | None = None,
    device: str | None = None,
) -> PreTrainedModel:
    """A causal language model, in eval mode, ready for inference, PEFT and (k-bit) training.

    Adapters of the default model name it as the hub does, so they load everywhere: without a hub by
    `PeftModel.from_pretrained(load_model(), folder)`; with one also by `AutoPeftModelForCausalLM`, which takes the
    published weights. (Those of the course were quantized to 4 bits once, and differ a little.)

    Args:
        model_id: the default model by its short or its public name (fetched once, then offline), a local folder, or
            any hub id.
        precision: number format of the weights. "auto" is what computes fastest here (`machine.fast_dtype`), or what
            a quantized checkpoint is stored in. "nf4" and "fp4" store linear weights in 4 bits, "nf4-dq" also
            quantizes the constants (QLoRA, section 3), "int8" is LLM.int8().
        revision: branch, tag or commit on the hub; with one, the default model comes from the hub as well.
        compute_dtype: the format in which quantized weights are multiplied, and in which the layers that are not
            quantized are kept (a quantized checkpoint brings its own); the fast one by default. Other models multiply
            in the format of their weights, and this changes nothing.
        device: "cpu", "cuda" or "mps"; the best one present by default.

    Raises:
        ValueError: unknown precision, or another than a quantized checkpoint is stored in; an empty id; 4-bit weights
            that bitsandbytes restores wrongly here (`restored.check_restored`).
        OSError: the model is neither here nor reachable, or what is here is no model.
        cache.ModelCacheError: the default model could not be fetched or stored.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}.")
    device = device or machine.device()
    source = _source(model_id, revision)
    _check_files(source)
    config = _from_pretrained(AutoConfig, source, revision)
    stored = stored_precision(config)
    if stored and precision not in ("auto", stored):
        raise ValueError(
            f"{model_id!r} is stored in {stored}, so it cannot be loaded in {precision}. Leave precision at 'auto'"
            + ("; for 16- or 32-bit weights call `.dequantize()` on the loaded model." * (stored in QUANTIZED) or ".")
        )
    quantized = bool(stored) or precision in QUANTIZED
    dtype = DTYPES.get(precision) or (compute_dtype if quantized else None) or machine.fast_dtype(device)
    options: dict[str, Any] = {"device_map": device} if quantized else {}
    if stored in QUANTIZED:
        config.quantization_config["bnb_4bit_compute_dtype"] = dtype
    elif not stored and quantized:
        options["quantization_config"] = quantization_config(precision, dtype)
    _release_memory()
    model = _from_pretrained(
        AutoModelForCausalLM, source, revision, config=config, dtype=dtype, use_safetensors=True, **options
    )
    if model_id in DEFAULT:
        model.name_or_path = model.config.name_or_path = cache.PUBLIC_ID  # what adapters say they belong to
    if quantized:
        check_restored(model)
    return make_safe_to_train(model if quantized else model.to(device))


def load_config(model_id: str = cache.NAME, *, revision: str | None = None) -> PreTrainedConfig:
    """The shape of a model, without its weights: what the config.json of a folder or of the hub says.

    Raises:
        ValueError: an empty id.
        OSError: it is neither here nor reachable.
    """
    return _from_pretrained(AutoConfig, _source(model_id, revision), revision)


def load_tokenizer(model_id: str = cache.NAME, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to `model_id`, exactly as it was published.

    Raises:
        ValueError: an empty id.
        OSError: it is neither here nor reachable.
    """
    source = _source(model_id, revision)
    tokenizer = _from_pretrained(AutoTokenizer, source, revision)
    if model_id in DEFAULT:
        tokenizer.name_or_path = cache.PUBLIC_ID
    return tokenizer


def make_safe_to_train(model: PreTrainedModel) -> PreTrainedModel:
    """Keep bitsandbytes from repacking 4-bit weights for inference, which would ruin any later training.

    On a CPU with AVX512-BF16, the first eval-mode forward of a `Linear4bit` repacks its weight in place for a kernel
    that has no backward pass. From then on gradients are wrong, saved weights corrupt and merged weights noise, while
    the loss still falls. Clearing this flag, which no other layer has, keeps the portable kernels.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _release_memory() -> None:
    """Give back what deleted models took: they hold reference cycles, and glibc keeps freed blocks for itself."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no malloc_trim
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _source(model_id: str, revision: str | None) -> str:
    """What the libraries load from: a folder that exists, or a hub id."""
    if not str(model_id).strip():
        raise ValueError("model_id is empty: give a hub id or the path of a folder, or leave it out.")
    if model_id in DEFAULT:
        return cache.PUBLIC_ID if revision else str(cache.default_model_dir())
    path = Path(os.path.expanduser(model_id))
    if path.is_dir():
        return str(path)
    try:
        validate_repo_id(model_id)
    except HFValidationError:
        what = "is a file, not a folder" if path.is_file() else "is not there"
        raise FileNotFoundError(
            f"Cannot load {str(model_id)!r}: {path.absolute()} {what}. Give the path of a folder that holds "
            "config.json and *.safetensors, or a hub id of the form owner/name."
        ) from None
    return model_id


def _check_files(source: str) -> None:
    """Say what a local folder lacks that should hold a model; the hub is left to the libraries."""
    folder = Path(source)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {"config.json", "on.safetensors"}
    if "config.json" not in names and "adapter_config.json" in names:
        raise OSError(
            f"{folder} holds an adapter, not a model. Load the model that it was trained on (adapter_config.json names "
            f"it) and put the adapter on it: `PeftModel.from_pretrained(loading.load_model(...), {source!r})`."
        )
    if "config.json" not in names:
        raise OSError(f"{folder} has no config.json, so it holds no model; `model.save_pretrained(folder)` writes one.")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = any(name.startswith("pytorch_model") for name in names)
        raise OSError(
            _safetensors_only(source)
            if pickled
            else f"{folder} has no weights (*.safetensors); `model.save_pretrained(folder)` writes them."
        )


def _safetensors_only(source: str) -> str:
    return (
        f"{source!r} has its weights in pytorch_model.bin only. The course reads safetensors only: a .bin is a pickle, "
        "and reading a pickle can run any code. If you trust where it comes from, convert it once: "
        f"`AutoModelForCausalLM.from_pretrained({source!r}, use_safetensors=False).save_pretrained(new_folder)` and "
        f"`AutoTokenizer.from_pretrained({source!r}).save_pretrained(new_folder)`."
    )


def _without_safetensors(source: str, revision: str | None) -> str:
    """What a repository of the hub has in place of safetensors."""
    try:
        names = HfApi().list_repo_files(source, revision=revision)
    except hub.FAILURES:
        return f"{source!r} has no weights (*.safetensors) in the cache, and the hub cannot be asked for them."
    if any(name.startswith("pytorch_model") for name in names):
        return _safetensors_only(source)
    there = ", ".join(names) or "nothing"
    return f"{source!r} has no weights (*.safetensors) on the hub, but {there}. Name another model."


def _from_pretrained(auto_class: type, source: str, revision: str | None, **options: Any) -> Any:
    unreadable = hub.FAILURES + ((SafetensorError,) if auto_class is AutoModelForCausalLM else (ValueError,))
    try:
        return auto_class.from_pretrained(source, revision=revision or "main", **options)
    except (*unreadable, RuntimeError) as error:
        if not isinstance(error, unreadable) and not hub.failed(error):
            raise
        if Path(source).is_dir():
            reason = str(error).strip().splitlines()[0].rstrip(".:") + "."
            what, files = "model", "config.json and model.safetensors"
            if auto_class is AutoTokenizer:
                what, files = "tokenizer", "tokenizer.json and tokenizer_config.json"
            raise OSError(
                f"Cannot load the {what} in the folder {source}: {reason} It needs {files}, whole, as "
                f"`{what}.save_pretrained(folder)` writes them."
            ) from error
        if "use_safetensors" in str(error):
            raise OSError(_without_safetensors(source, revision)) from error
        raise OSError(
            f"Cannot load {source!r}, which is no folder here, from the hub: {hub.reason(error)}. You can also give "
            f"the path of a local folder, or use the default {cache.NAME!r}, which needs no hub.{hub.closed()}"
        ) from error
