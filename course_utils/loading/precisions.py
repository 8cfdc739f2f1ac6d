"""What does the name of a number format mean? Bits of the weights, quantizer, and the format that is computed in."""

import os

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZED = ("int8", "nf4", "nf4-dq", "fp4")
PRECISIONS = ("auto", *DTYPES, *QUANTIZED)


def quantization_config(precision: str, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """What transformers needs to quantize while it loads; `precision` is one of `QUANTIZED`.

    Where accelerate spreads the weights over processes (FSDP), 4-bit weights lie in the format that is computed in, as
    it can only spread weights of one format; their values are the same.
    """
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=precision.removesuffix("-dq"),
        bnb_4bit_use_double_quant=precision.endswith("-dq"),
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=compute_dtype if os.environ.get("ACCELERATE_USE_FSDP") == "true" else torch.uint8,
    )


def stored_precision(config: PreTrainedConfig) -> str | None:
    """The name of the format that a quantized checkpoint is stored in; None if its weights are plain numbers."""
    stored = getattr(config, "quantization_config", None)
    if not stored:
        return None
    if stored.get("load_in_4bit"):
        return stored["bnb_4bit_quant_type"] + ("-dq" if stored.get("bnb_4bit_use_double_quant") else "")
    return "int8" if stored.get("load_in_8bit") else stored.get("quant_method", "an unknown format")
