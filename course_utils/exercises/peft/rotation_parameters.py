"""How many numbers does a rotation train?

LoRA adds to a weight. *OFT* (orthogonal fine-tuning), an eleventh method, turns what goes into it: `W R x`, where `R`
is a rotation of the inputs. To keep it small, the inputs of each layer are cut into groups of `block_size`, and each
group is turned by itself. The rotation of a group is computed from a matrix `S` that is *skew-symmetric*: the entry at
(j, i) is that at (i, j) with the opposite sign. Train only what is needed to know all of `S`.

Predict the number of trained parameters. `shape` has the names of a Llama configuration; `head_dim` times the number of
heads need not be `hidden_size`. `targets` are names such as `("q_proj", "down_proj")`, and `block_size` divides all
their inputs.

Before you run it: which of the seven costs most, and are `k_proj` and `v_proj` cheaper than `q_proj`, as they are with
LoRA where heads are shared? On SmolLM2-135M, LoRA with r = 8 on all seven trains 2,442,240. Is it more with blocks of
32?
"""

import torch
from peft import OFTConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import memory
from course_utils.exercises.exercise import Exercise

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def rotation_parameters(shape: dict[str, int], block_size: int, targets: tuple[str, ...]) -> int:
    """The number of entries above the diagonal of all S, in a model of that shape."""
    heads = shape["num_attention_heads"] * shape["head_dim"]
    inputs = {"o_proj": heads, "down_proj": shape["intermediate_size"]}
    groups = sum(inputs.get(name, shape["hidden_size"]) // block_size for name in targets)
    return shape["num_hidden_layers"] * groups * block_size * (block_size - 1) // 2


def cases() -> dict[str, tuple[dict[str, int], int, tuple[str, ...]]]:
    names = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim".split()

    def shape(*sizes: int) -> dict[str, int]:
        return dict(zip(names, sizes, strict=True))

    return {
        "SmolLM2-135M, blocks of 32, all seven": (shape(576, 1536, 30, 9, 3, 64), 32, SEVEN),
        "Llama-3.1-8B, blocks of 64, q and v": (shape(4096, 14336, 32, 32, 8, 128), 64, ("q_proj", "v_proj")),
        "a model with wide heads, blocks of 16, o and down": (
            shape(1024, 3072, 28, 16, 8, 128),
            16,
            ("o_proj", "down_proj"),
        ),
    }


def _outputs(shape: dict[str, int], name: str) -> int:
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads", "v_proj": "num_key_value_heads"}
    if name in heads:
        return shape[heads[name]] * shape["head_dim"]
    return shape["intermediate_size"] if name in ("gate_proj", "up_proj") else shape["hidden_size"]


def of_outputs(shape, block_size, targets):
    channels = sum(_outputs(shape, name) for name in targets)
    return shape["num_hidden_layers"] * channels * (block_size - 1) // 2


def both_sides(shape, block_size, targets):
    return rotation_parameters(shape, block_size, targets) + of_outputs(shape, block_size, targets)


def whole_blocks(shape, block_size, targets):
    return rotation_parameters(shape, block_size, targets) * 2 * block_size // (block_size - 1)


def with_the_diagonal(shape, block_size, targets):
    return rotation_parameters(shape, block_size, targets) * (block_size + 1) // (block_size - 1)


def both_triangles(shape, block_size, targets):
    return 2 * rotation_parameters(shape, block_size, targets)


def _inputs(shape: dict[str, int], name: str) -> int:
    heads = shape["num_attention_heads"] * shape["head_dim"]
    return {"o_proj": heads, "down_proj": shape["intermediate_size"]}.get(name, shape["hidden_size"])


def no_groups(shape, block_size, targets):
    channels = [_inputs(shape, name) for name in targets]
    return shape["num_hidden_layers"] * sum(n * (n - 1) // 2 for n in channels)


def once_for_each_channel(shape, block_size, targets):
    return rotation_parameters(shape, block_size, targets) * block_size


def heads_as_inputs(shape, block_size, targets):
    shared = shape["num_key_value_heads"] * shape["head_dim"]
    channels = sum(shared if name in ("k_proj", "v_proj") else _inputs(shape, name) for name in targets)
    return shape["num_hidden_layers"] * channels * (block_size - 1) // 2


def one_block(shape, block_size, targets):
    return shape["num_hidden_layers"] * len(targets) * block_size * (block_size - 1) // 2


def one_layer(shape, block_size, targets):
    return rotation_parameters({**shape, "num_hidden_layers": 1}, block_size, targets)


def as_wide_as_the_model(shape, block_size, targets):
    return shape["num_hidden_layers"] * len(targets) * shape["hidden_size"] * (block_size - 1) // 2


def narrow_heads(shape, block_size, targets):
    return rotation_parameters(
        {**shape, "head_dim": shape["hidden_size"] // shape["num_attention_heads"]}, block_size, targets
    )


def counted(shape, block_size, targets):
    with torch.device("meta"):
        one = LlamaForCausalLM(LlamaConfig(vocab_size=8, **{**shape, "num_hidden_layers": 1}))
        adapted = get_peft_model(one, OFTConfig(oft_block_size=block_size, target_modules=list(targets)))
    return shape["num_hidden_layers"] * memory.count_parameters(adapted, trainable=True)


EXERCISE = Exercise(
    answer=rotation_parameters,
    kind="predict it",
    difficulty=2,
    minutes=10,
    cases=cases,
    mistakes={
        of_outputs: "{yours:,} instead of {expected:,}: those are rotations of the outputs. `R` stands on the other "
        "side of `W`, so sharing heads saves nothing here.",
        both_sides: "{yours:,} is {ratio:.2f} times {expected:,}: only the inputs are turned, not the outputs as well.",
        whole_blocks: "{yours:,} is {ratio:.3f} times {expected:,}: all entries of S were counted. One triangle says "
        "what is in the other, and the diagonal is its own opposite, so it is zero.",
        with_the_diagonal: "{yours:,} is {ratio:.3f} times {expected:,}: the diagonal was counted, too. Each of its "
        "entries is its own opposite, so it is zero.",
        both_triangles: "{yours:,} is {ratio:.0f} times {expected:,}: each entry was counted with its opposite.",
        no_groups: "{yours:,} is {ratio:.0f} times {expected:,}: those are rotations of all inputs together. With "
        "groups, S has only blocks along its diagonal.",
        once_for_each_channel: "{yours:,} is {ratio:.0f} times {expected:,}: each group was counted once for each of "
        "its channels. There are inputs / block_size groups.",
        heads_as_inputs: "{yours:,} instead of {expected:,}: k and v have fewer *outputs* where heads are shared. What "
        "goes into them is as wide as for q.",
        one_block: "{yours:,} instead of {expected:,}: that is one group in each layer.",
        one_layer: "{yours:,} instead of {expected:,}: that is one layer of the model.",
        as_wide_as_the_model: "{yours:,} instead of {expected:,}: not every layer has hidden_size inputs. Which two of "
        "the seven have not?",
        narrow_heads: "Right but for {wrong} of {cases} models, and there off by {difference:,}: a head is head_dim "
        "wide, whatever hidden_size / num_attention_heads may be. Which layer takes all heads?",
    },
    hints=(
        "How many entries of a skew-symmetric matrix of three rows can be chosen freely? Of b rows?",
        "For each target: its inputs, divided by block_size, are the groups; each has b (b - 1) / 2 numbers. Five of "
        "the seven take hidden_size inputs; o_proj takes all heads together, down_proj intermediate_size.",
    ),
    alternatives=(counted,),
)
