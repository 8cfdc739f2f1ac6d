"""Where do model, tokenizer and data come from?"""

import argparse
import contextlib
import ctypes
import gc
import os
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import machine, model_cache, noise
from course_utils.datafiles import load_conversations, load_figures, load_passages, load_prompts, load_task

__all__ = [
    "load_conversations",
    "load_figures",
    "load_model",
    "load_passages",
    "load_prompts",
    "load_task",
    "load_tokenizer",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZED = ("int8", "nf4", "nf4-dq", "fp4")
PRECISIONS = ("auto", *DTYPES, *QUANTIZED)

noise.quiet()
transformers.utils.logging.disable_progress_bar()  # bars for reading local files; downloads keep their own


def load_model(
    model_id: str = model_cache.NAME,
    precision: str = "auto",
    *,
    revision: str | None = None,
    compute_dtype: torch.dtype | None = None,
    device: str | None = None,
) -> PreTrainedModel:
    """A causal language model, in eval mode, ready for inference, PEFT and (k-bit) training.

    Args:
        model_id: the default model (fetched once, then offline), a local folder, or any hub id.
        precision: number format of the weights. "auto" is what computes fastest here (`machine.fast_dtype`). "nf4" and
            "fp4" store linear weights in 4 bits, "nf4-dq" also quantizes the constants (QLoRA, section 3), "int8" is
            LLM.int8().
        revision: branch, tag or commit of a hub id.
        compute_dtype: format in which quantized weights are multiplied; the fast one by default.
        device: "cpu", "cuda" or "mps"; the best one present by default.

    Raises:
        ValueError: unknown precision.
        OSError: the model is neither here nor reachable.
        model_cache.ModelCacheError: the default model could not be fetched or stored.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}.")
    device = device or machine.device()
    dtype = DTYPES.get(precision) or compute_dtype or machine.fast_dtype(device)
    config = _quantization_config(precision, dtype)
    _release_memory()
    placed = {"device_map": device} if config else {}
    model = _from_pretrained(
        AutoModelForCausalLM,
        model_id,
        revision,
        dtype=dtype,
        quantization_config=config,
        use_safetensors=True,
        **placed,
    )
    return make_safe_to_train(model) if config else model.to(device)


def load_tokenizer(model_id: str = model_cache.NAME, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to `model_id`, exactly as it was published.

    Raises:
        OSError: it is neither here nor reachable.
    """
    return _from_pretrained(AutoTokenizer, model_id, revision)


def make_safe_to_train(model: PreTrainedModel) -> PreTrainedModel:
    """Keep bitsandbytes from repacking 4-bit weights for inference, which would ruin any later training.

    On a CPU with AVX512-BF16, the first eval-mode forward of a `Linear4bit` repacks its weight in place for a kernel
    that has no backward pass. From then on gradients are wrong, saved weights corrupt and merged weights noise, while
    the loss still falls. Clearing this flag keeps the portable kernels; elsewhere it changes nothing.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def _release_memory() -> None:
    """Give back what deleted models took: they hold reference cycles, and glibc keeps freed blocks for itself."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no malloc_trim
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _quantization_config(precision: str, compute_dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if precision in QUANTIZED:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=precision.removesuffix("-dq"),
            bnb_4bit_use_double_quant=precision.endswith("-dq"),
            bnb_4bit_compute_dtype=compute_dtype,
        )
    return None


def _from_pretrained(auto_class: type, model_id: str, revision: str | None, **options: object):
    here = model_id == model_cache.NAME
    source = str(model_cache.default_model_dir()) if here else model_id
    try:
        return auto_class.from_pretrained(source, revision=revision or "main", **options)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        offline = " HF_HUB_OFFLINE is set: unset it to use the network." if os.environ.get("HF_HUB_OFFLINE") else ""
        raise OSError(
            f"Cannot load {model_id!r}: {reason} Check the id and the network (a gated model also needs "
            f"`hf auth login`), give the path of a local folder, or use the default {model_cache.NAME!r}, which needs "
            f"no hub.{offline}"
        ) from error


def main() -> None:
    """`python -m course_utils.loading --fetch`: bring the default model to this disk; `--describe`: data statistics."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.loading", description=main.__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--fetch", action="store_true", help="fetch the default model, or find it in the cache")
    task.add_argument("--describe", action="store_true", help="print statistics of the data files")
    if parser.parse_args().fetch:
        folder: Path = model_cache.default_model_dir()
        print(f"{model_cache.NAME} is ready in {folder}")
    else:
        from course_utils import datasheet

        print(datasheet.describe(load_tokenizer()))


if __name__ == "__main__":
    main()
