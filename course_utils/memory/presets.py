"""Which published models are known by name, or by their size alone?"""

import math
import re

from transformers import AutoConfig, PreTrainedConfig

from course_utils import loading
from course_utils.loading import cache

# Type, width, layers, heads, heads of keys and values, width of the MLP, vocabulary, longest text in tokens; and what
# else decides the shape. From each model's published config.json; the tests know the published numbers of parameters.
PRESETS = {
    "GPT-2": ("gpt2", 768, 12, 12, 12, 3072, 50_257, 1024),
    "GPT-2-XL": ("gpt2", 1600, 48, 25, 25, 6400, 50_257, 1024),
    "Pythia-160M": ("gpt_neox", 768, 12, 12, 12, 3072, 50_304, 2048),
    "Pythia-1B": ("gpt_neox", 2048, 16, 8, 8, 8192, 50_304, 2048),
    "Pythia-1.4B": ("gpt_neox", 2048, 24, 16, 16, 8192, 50_304, 2048),
    "Pythia-2.8B": ("gpt_neox", 2560, 32, 32, 32, 10_240, 50_304, 2048),
    "Pythia-6.9B": ("gpt_neox", 4096, 32, 32, 32, 16_384, 50_432, 2048),
    "Pythia-12B": ("gpt_neox", 5120, 36, 40, 40, 20_480, 50_688, 2048),
    "StableLM-alpha-3B": ("gpt_neox", 4096, 16, 32, 32, 16_384, 50_688, 4096),
    "phi-1.5": ("phi", 2048, 24, 32, 32, 8192, 51_200, 2048),
    "phi-2": ("phi", 2560, 32, 32, 32, 10_240, 51_200, 2048),
    "Falcon-7B": ("falcon", 4544, 32, 71, 1, 18_176, 65_024, 2048),
    "Falcon-40B": ("falcon", 8192, 60, 128, 8, 32_768, 65_024, 2048, {"new_decoder_architecture": True}),
    "BLOOM-7B1": ("bloom", 4096, 30, 32, 32, 16_384, 250_880, 2048),
    "LLaMA-7B": ("llama", 4096, 32, 32, 32, 11_008, 32_000, 2048),
    "LLaMA-13B": ("llama", 5120, 40, 40, 40, 13_824, 32_000, 2048),
    "LLaMA-33B": ("llama", 6656, 60, 52, 52, 17_920, 32_000, 2048),
    "LLaMA-65B": ("llama", 8192, 80, 64, 64, 22_016, 32_000, 2048),
    "Llama-2-7B": ("llama", 4096, 32, 32, 32, 11_008, 32_000, 4096),
    "Llama-2-13B": ("llama", 5120, 40, 40, 40, 13_824, 32_000, 4096),
    "Llama-2-70B": ("llama", 8192, 80, 64, 8, 28_672, 32_000, 4096),
    "CodeLlama-34B": ("llama", 8192, 48, 64, 8, 22_016, 32_000, 16_384),
    "Yi-34B": ("llama", 7168, 60, 56, 8, 20_480, 64_000, 4096),
    "TinyLlama-1.1B": ("llama", 2048, 22, 32, 4, 5632, 32_000, 2048),
    "Llama-3-8B": ("llama", 4096, 32, 32, 8, 14_336, 128_256, 8192),
    "Llama-3-70B": ("llama", 8192, 80, 64, 8, 28_672, 128_256, 8192),
    "Llama-3.1-405B": ("llama", 16_384, 126, 128, 8, 53_248, 128_256, 131_072),
    "Llama-3.2-1B": ("llama", 2048, 16, 32, 8, 8192, 128_256, 131_072, {"tie_word_embeddings": True}),
    "Llama-3.2-3B": ("llama", 3072, 28, 24, 8, 8192, 128_256, 131_072, {"tie_word_embeddings": True}),
    "SmolLM2-135M": ("llama", 576, 30, 9, 3, 1536, 49_152, 8192, {"tie_word_embeddings": True}),
    "SmolLM2-360M": ("llama", 960, 32, 15, 5, 2560, 49_152, 8192, {"tie_word_embeddings": True}),
    "SmolLM2-1.7B": ("llama", 2048, 24, 32, 32, 8192, 49_152, 8192, {"tie_word_embeddings": True}),
    "Mistral-7B": ("mistral", 4096, 32, 32, 8, 14_336, 32_000, 32_768),
    "Gemma-2B": ("gemma", 2048, 18, 8, 1, 16_384, 256_000, 8192, {"head_dim": 256}),
    "Gemma-7B": ("gemma", 3072, 28, 16, 16, 24_576, 256_000, 8192, {"head_dim": 256}),
    "Gemma-2-2B": ("gemma2", 2304, 26, 8, 4, 9216, 256_000, 8192, {"head_dim": 256}),
    "Gemma-2-9B": ("gemma2", 3584, 42, 16, 8, 14_336, 256_000, 8192, {"head_dim": 256}),
    "Qwen-7B": ("qwen2", 4096, 32, 32, 32, 11_008, 151_936, 8192),
    "Qwen2.5-0.5B": ("qwen2", 896, 24, 14, 2, 4864, 151_936, 32_768, {"tie_word_embeddings": True}),
    "Qwen2.5-7B": ("qwen2", 3584, 28, 28, 4, 18_944, 152_064, 131_072),
    "Qwen3-0.6B": ("qwen3", 1024, 28, 16, 8, 3072, 151_936, 40_960, {"tie_word_embeddings": True}),
    "Qwen3-8B": ("qwen3", 4096, 36, 32, 8, 12_288, 151_936, 40_960),
}
NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([MB])", re.IGNORECASE)


def find_config(model: str | PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of a preset (in upper or lower case), a size such as "7B", a folder, or an id of the hub.

    Raises:
        ValueError: no such model; the error names the presets.
    """
    if isinstance(model, PreTrainedConfig):
        return model
    if model in (cache.NAME, cache.PUBLIC_ID):
        return preset("SmolLM2-135M")
    for name in PRESETS:
        if name.lower() == model.strip().lower():
            return preset(name)
    if size := SIZE.fullmatch(model.strip()):
        return like_llama(float(size[1]) * {"M": 1e6, "B": 1e9}[size[2].upper()])
    try:
        return loading.load_config(model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Unknown model {model!r}: it is none of the presets ({', '.join(PRESETS)}), no size such as '7B', and it "
            f"cannot be read as a folder or an id of the hub. {error}"
        ) from error


def preset(name: str) -> PreTrainedConfig:
    """The configuration of one of `PRESETS`."""
    kind, width, layers, heads, groups, mlp, vocabulary, longest, *more = PRESETS[name]
    shape = dict(zip(NAMES, (width, layers, heads, vocabulary, longest), strict=True))
    if kind == "falcon":
        shape |= {"num_kv_heads": groups, "ffn_hidden_size": mlp}
    elif kind not in ("gpt2", "bloom"):  # there the MLP is four times as wide as the model
        shape |= {"intermediate_size": mlp} | ({"num_key_value_heads": groups} if kind != "gpt_neox" else {})
    return AutoConfig.for_model(kind, **shape | (more[0] if more else {}))


def like_llama(parameters: float) -> PreTrainedConfig:
    """A shape like LLaMA's with about so many parameters: layers = width / 128, MLP 8/3 as wide, 32,000 tokens.

    Raises:
        ValueError: too few for one layer.
    """
    vocabulary = 32_000
    width = 128 * max(1, round((parameters / 12 * 128) ** (1 / 3) / 128))
    mlp = 256 * math.ceil(width * 8 / 3 / 256)
    layers = round((parameters - 2 * vocabulary * width) / (4 * width**2 + 3 * width * mlp))
    if layers < 1:
        raise ValueError(
            f"{parameters:,.0f} parameters are too few for a vocabulary of {vocabulary:,} and one layer; give a "
            "preset, a folder, or at least 20M."
        )
    heads = width // 128
    shape = dict(zip(NAMES, (width, layers, heads, vocabulary, 4096), strict=True))
    return AutoConfig.for_model("llama", intermediate_size=mlp, **shape)
