"""Where do the bytes of a model in 4 bits lie?

Predict them from a Llama configuration. `shape` has its names: `hidden_size`, `intermediate_size`,
`num_hidden_layers`, `num_attention_heads`, `num_key_value_heads`, `vocab_size`, and `tie_word_embeddings`: whether the
output head is the embedding itself. A layer has q and o (as wide as the model on both sides), k and v (narrower where
heads share keys and values), and gate, up and down. The stored format is NF4 with double quantization: blocks of 64,
an 8-bit index for each absmax, one fp32 number for 256 of these, both rounded up to whole blocks for each matrix.

Return a dict: `indexes`, the packed weights; `constants`, what double quantization stores for them (leave out the mean
and the two code tables, about a kilobyte for each matrix); and `16 bits`, all that is not quantized: embedding, head,
and the norms, two in each layer and one at the end. Before you run anything: which of the three is the largest for
Llama-3.2-1B, whose vocabulary has 128,256 tokens? And do the weights of LLaMA-13B fit 8 GB?
"""

import math

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils.exercises.exercise import Exercise

Shape = dict[str, int]


def bytes_in_4_bits(shape: dict[str, int]) -> dict[str, int]:
    """Bytes of a Llama in NF4 with double quantization, by what they hold."""
    width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    narrow = width * shape["num_key_value_heads"] // shape["num_attention_heads"]
    sizes = [width * n for n in (width, narrow, narrow, width, inner, inner, inner)]
    blocks = [math.ceil(size / 64) for size in sizes]
    tables = 1 if shape["tie_word_embeddings"] else 2
    return {
        "indexes": layers * sum(sizes) // 2,
        "constants": layers * sum(n + 4 * math.ceil(n / 256) for n in blocks),
        "16 bits": 2 * width * (tables * shape["vocab_size"] + 2 * layers + 1),
    }


def cases() -> dict[str, tuple[Shape]]:
    names = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads vocab_size".split()

    def shape(*sizes: int, tied: bool) -> Shape:
        return dict(zip(names, sizes, strict=True)) | {"tie_word_embeddings": tied}

    return {
        "Llama-3.2-1B": (shape(2048, 8192, 16, 32, 8, 128_256, tied=True),),
        "LLaMA-13B": (shape(5120, 13_824, 40, 40, 40, 32_000, tied=False),),
        "SmolLM2-135M": (shape(576, 1536, 30, 9, 3, 49_152, tied=True),),
    }


def all_quantized(shape):
    found, tables = bytes_in_4_bits(shape), 1 if shape["tie_word_embeddings"] else 2
    numbers = tables * shape["vocab_size"] * shape["hidden_size"]
    blocks = tables * (numbers // tables // 64)
    return {
        "indexes": found["indexes"] + numbers // 2,
        "constants": found["constants"] + blocks + 4 * math.ceil(blocks / 256),
        "16 bits": found["16 bits"] - 2 * numbers,
    }


def tied_head_twice(shape):
    return bytes_in_4_bits({**shape, "tie_word_embeddings": False})


def no_head(shape):
    return bytes_in_4_bits({**shape, "tie_word_embeddings": True})


def a_byte_each(shape):
    found = bytes_in_4_bits(shape)
    return found | {"indexes": 2 * found["indexes"]}


def single_quantization(shape):
    found = bytes_in_4_bits(shape)
    return found | {"constants": found["indexes"] // 8}


def scales_of_scales_forgotten(shape):
    found = bytes_in_4_bits(shape)
    return found | {"constants": found["indexes"] // 32}


def not_rounded_up(shape):
    found = bytes_in_4_bits(shape)
    return found | {"constants": found["indexes"] // 32 * (1 + 4 / 256)}


def norms_forgotten(shape):
    found = bytes_in_4_bits(shape)
    return found | {"16 bits": found["16 bits"] - 2 * shape["hidden_size"] * (2 * shape["num_hidden_layers"] + 1)}


def heads_not_shared(shape):
    return bytes_in_4_bits({**shape, "num_key_value_heads": shape["num_attention_heads"]})


def one_layer(shape):
    return bytes_in_4_bits({**shape, "num_hidden_layers": 1})


def counted(shape):
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**{**shape, "num_hidden_layers": 1}))
    layers, layer = shape["num_hidden_layers"], model.model.layers[0]
    matrices = [m.weight.numel() for m in layer.modules() if isinstance(m, nn.Linear)]
    norms = sum(p.numel() for p in layer.parameters()) - sum(matrices)
    outside = sum(p.numel() for p in model.parameters()) - sum(matrices) - norms
    blocks = [-(-n // 64) for n in matrices]
    constants = sum(blocks) + 4 * sum(-(-n // 256) for n in blocks)
    found = layers * sum(matrices) // 2, layers * constants, 2 * (outside + layers * norms)
    return dict(zip(("indexes", "constants", "16 bits"), found, strict=True))


EXERCISE = Exercise(
    answer=bytes_in_4_bits,
    kind="predict it",
    difficulty=2,
    minutes=12,
    cases=cases,
    mistakes={
        all_quantized: "{part}: {ratio:.2f} times too many. Only the linear layers are packed; the embedding and the "
        "head stay in 16 bits.",
        tied_head_twice: "{part}: {ratio:.2f} times too many. A tied head is the embedding and counts once.",
        no_head: "{part}: right for the tied models, off by {difference:,} bytes in {wrong} of {cases}: a head that is "
        "not tied is another matrix of vocab_size times hidden_size.",
        a_byte_each: "{part}: {ratio:.1f} times too many. Two indexes of 4 bits share a byte.",
        single_quantization: "{part}: {ratio:.2f} times too many. That is one fp32 number for 64 weights; with double "
        "quantization it is a byte, and 4 bytes for 256 of these.",
        scales_of_scales_forgotten: "{part}: {ratio:.4f} of what it is. For 256 of the 8-bit indexes there is an fp32 "
        "number more.",
        not_rounded_up: "{part}: off by {difference:,.0f} bytes in {wrong} of {cases} models. That is right on "
        "average; but the last block of a matrix has its number even if it is not full.",
        norms_forgotten: "{part}: off by {difference:,} bytes. The norms are small, but they are there: two vectors of "
        "hidden_size in each layer, and one at the end.",
        heads_not_shared: "{part}: {ratio:.3f} times too many, for {wrong} of {cases} models. k and v have only "
        "num_key_value_heads of the num_attention_heads heads.",
        one_layer: "{part}: {ratio:.3f} of what it is. That is one layer's.",
    },
    hints=(
        "List the seven matrices of a layer with their two sides. Then three questions, one for each key: how many "
        "numbers, how many bytes is one of them, and how often?",
        "k and v have hidden_size on one side and their share of the heads on the other. A matrix of n numbers has "
        "b = ceil(n / 64) blocks: b bytes, and 4 * ceil(b / 256) more. A tied head is no matrix of its own.",
    ),
    alternatives=(counted,),
)
