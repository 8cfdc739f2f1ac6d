"""How many numbers does LoRA train where heads are shared?

In the lesson the shapes of the layers were read from the model. Predict them from a configuration instead. `shape` has
the names of a Llama configuration: `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`,
`num_key_value_heads` and `head_dim`. With *grouped-query attention* several query heads share a key and a value head,
so there are fewer of the latter. And `head_dim` times the number of heads need not be `hidden_size`.

`targets` are names such as `("q_proj", "down_proj")`. Before you run anything: how many is it for the first input,
SmolLM2-135M (576 wide, 30 layers, 9 heads, 3 key and value heads of 64 each), with r = 8 on the four matrices of the
attention?
"""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from course_utils import memory
from course_utils.exercises.exercise import Exercise

ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


def trained_parameters(shape: dict[str, int], r: int, targets: tuple[str, ...]) -> int:
    """The number of entries of all A and B, in a model of that shape."""
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    q = shape["num_attention_heads"] * shape["head_dim"]
    kv = shape["num_key_value_heads"] * shape["head_dim"]
    sides = {"q_proj": width + q, "k_proj": width + kv, "v_proj": width + kv, "o_proj": q + width}
    sides |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), width + inner)
    return shape["num_hidden_layers"] * r * sum(sides[name] for name in targets)


def cases() -> dict[str, tuple[dict[str, int], int, tuple[str, ...]]]:
    names = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim".split()

    def shape(*sizes: int) -> dict[str, int]:
        return dict(zip(names, sizes, strict=True))

    return {
        "SmolLM2-135M, r = 8, attention": (shape(576, 1536, 30, 9, 3, 64), 8, ATTENTION),
        "Llama-3.1-8B, r = 16, q and v": (shape(4096, 14336, 32, 32, 8, 128), 16, ("q_proj", "v_proj")),
        "a model with wide heads, r = 4, all seven": (shape(1024, 3072, 28, 16, 8, 128), 4, ATTENTION + FEED_FORWARD),
    }


def heads_not_shared(shape, r, targets):
    return trained_parameters({**shape, "num_key_value_heads": shape["num_attention_heads"]}, r, targets)


def narrow_heads(shape, r, targets):
    return trained_parameters({**shape, "head_dim": shape["hidden_size"] // shape["num_attention_heads"]}, r, targets)


def one_layer(shape, r, targets):
    return trained_parameters({**shape, "num_hidden_layers": 1}, r, targets)


def rank_once(shape, r, targets):
    return trained_parameters(shape, 1, targets)


def only_a(shape, r, targets):
    q = shape["num_attention_heads"] * shape["head_dim"]
    inputs = {"o_proj": q, "down_proj": shape["intermediate_size"]}
    return shape["num_hidden_layers"] * r * sum(inputs.get(name, shape["hidden_size"]) for name in targets)


def whole_matrices(shape, r, targets):
    width, head = shape["hidden_size"], shape["head_dim"]
    kv, q = shape["num_key_value_heads"] * head, shape["num_attention_heads"] * head
    outputs = {"q_proj": q, "o_proj": q, "k_proj": kv, "v_proj": kv}
    return shape["num_hidden_layers"] * sum(width * outputs.get(n, shape["intermediate_size"]) for n in targets)


def counted(shape, r, targets):
    with torch.device("meta"):
        one_layer = LlamaForCausalLM(LlamaConfig(vocab_size=8, **{**shape, "num_hidden_layers": 1}))
        adapted = get_peft_model(one_layer, LoraConfig(r=r, target_modules=list(targets)))
    return shape["num_hidden_layers"] * memory.count_parameters(adapted, trainable=True)


EXERCISE = Exercise(
    answer=trained_parameters,
    kind="predict it",
    difficulty=2,
    minutes=10,
    cases=cases,
    mistakes={
        heads_not_shared: "{yours:,} is {difference:,} too many: k and v have only num_key_value_heads heads.",
        narrow_heads: "Right but for {wrong} of {cases} models, and there off by {difference:,}: a head is head_dim "
        "wide, whatever hidden_size / num_attention_heads may be.",
        one_layer: "{yours:,} instead of {expected:,}: that is one layer's.",
        rank_once: "{yours:,} instead of {expected:,}: each of the r rows of A and columns of B counts.",
        only_a: "{yours:,} is {ratio:.2f} of {expected:,}: that is A alone. B has r times the outputs.",
        whole_matrices: "{yours:,} is {ratio:.1f} times {expected:,}: that is what full fine-tuning trains, d_out "
        "times d_in. Two thin matrices have r times the *sum*.",
    },
    hints=(
        "For one matrix it is r * (d_in + d_out). Write down d_in and d_out of q, k, v and o; which of them are as "
        "wide as the model, and which as all heads together?",
        "q: hidden_size in, num_attention_heads * head_dim out. k and v: hidden_size in, num_key_value_heads * "
        "head_dim out. o goes back from all heads to hidden_size. The three of the feed-forward part all have "
        "hidden_size on one side and intermediate_size on the other.",
    ),
    alternatives=(counted,),
)
