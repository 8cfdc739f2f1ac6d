"""How does Lit-GPT do the same as PEFT? A model of transformers in its form, with its switches for LoRA.

Lit-GPT asks for an older `huggingface_hub` than transformers does, so it is installed in a step of its own, without
what it depends on (`INSTALL`): what is used here needs only the packages that `requirements-litgpt.txt` names.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

if TYPE_CHECKING:
    from litgpt.lora import GPT

INSTALL = "python -m pip install --no-deps -r requirements-litgpt.txt"
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512}
TINY: dict[str, PreTrainedConfig] = {
    "pythia": GPTNeoXConfig(**SIZES, intermediate_size=256, max_position_embeddings=128),
    "falcon": FalconConfig(**SIZES, max_position_embeddings=128),
    "vicuna": LlamaConfig(**SIZES, intermediate_size=172, max_position_embeddings=128),
}


def available() -> bool:
    """Whether Lit-GPT is installed; where it is not, `INSTALL` is the command."""
    return all(find_spec(package) for package in ("litgpt", "lightning", "jsonargparse"))


def tiny(name: str) -> PreTrainedModel:
    """A model of random weights, the same at each call, in the shape of a family: "pythia", "falcon" (as the one of 7B,
    with one head of keys and values) or "vicuna", a Llama.

    Raises:
        ValueError: an unknown name.
    """
    if name not in TINY:
        raise ValueError(f"Unknown family {name!r}; choose from {', '.join(TINY)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(TINY[name]).eval()


def from_transformers(
    model: PreTrainedModel, *, lora_r: int = 8, lora_alpha: int = 16, lora_dropout: float = 0.0, **switches: bool
) -> "GPT":
    """Lit-GPT's model with a copy of the weights of `model`, frozen but for LoRA, which starts anew.

    `gpt(ids)` gives logits of shape (batch, length, vocabulary). The matrices of queries, keys and values are one in
    Lit-GPT, and the head is a matrix of its own, also where `model` shares it with the embedding.

    Args:
        model: of the shape of Llama, Pythia (GPT-NeoX) or Falcon 7B, in 16 or 32 bits.
        switches: where LoRA is put, each False by default: `lora_query`, `lora_key`, `lora_value`, `lora_projection`
            (of the attention), `lora_mlp`, `lora_head`.

    Raises:
        ValueError: a model of another shape.
        ModuleNotFoundError: Lit-GPT is not installed; says how.
    """
    if not available():
        raise ModuleNotFoundError(f"Lit-GPT is not installed here. In the folder of the clone: {INSTALL}")
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    from litgpt.scripts import convert_hf_checkpoint as convert

    shape = config_of(model.config)
    config = Config(**shape, lora_r=lora_r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, **switches)
    weights, converted = dict(model.state_dict()), {}
    if model.config.model_type == "llama":
        convert.copy_weights_hf_llama(config, {}, converted, weights)
    elif model.config.model_type == "falcon":
        convert.copy_weights_falcon(config, converted, weights)
    else:
        weights["embed_out.weight"] = weights.pop("lm_head.weight")  # its name before transformers 5
        convert.copy_weights_gpt_neox(config, converted, weights)
    gpt = GPT(config).to(model.device, model.dtype)
    lost = gpt.load_state_dict(converted, strict=False)
    if lost.unexpected_keys or any("lora_" not in key for key in lost.missing_keys):
        raise ValueError(f"The weights of this {model.config.model_type} do not fit Lit-GPT's model: {lost}.")
    mark_only_lora_as_trainable(gpt)
    return gpt.train(model.training)


def config_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of Lit-GPT's configuration that say what a configuration of transformers says.

    Raises:
        ValueError: a model of another shape.
    """
    kind, rope = config.model_type, getattr(config, "rope_parameters", None) or {}
    fields = {
        "block_size": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
        "padded_vocab_size": config.vocab_size,
        "n_layer": config.num_hidden_layers,
        "n_embd": config.hidden_size,
        "n_head": config.num_attention_heads,
        "rope_base": int(rope.get("rope_theta", 0)),
        "rotary_percentage": rope.get("partial_rotary_factor", 1.0),
    }
    if rope.get("rope_type") == "default" and kind == "llama":
        return fields | {
            "name": "llama",
            "n_query_groups": config.num_key_value_heads,
            "head_size": config.head_dim,
            "parallel_residual": False,
            "bias": False,
            "norm_class_name": "RMSNorm",
            "norm_eps": config.rms_norm_eps,
            "mlp_class_name": "LLaMAMLP",
            "intermediate_size": config.intermediate_size,
        }
    if rope.get("rope_type") == "default" and kind == "gpt_neox":
        return fields | {
            "name": "pythia",
            "parallel_residual": config.use_parallel_residual,
            "norm_eps": config.layer_norm_eps,
            "intermediate_size": config.intermediate_size,
        }
    if (
        rope.get("rope_type") == "default"
        and kind == "falcon"
        and not (config.new_decoder_architecture or config.alibi)
    ):
        return fields | {
            "name": "falcon-7b",
            "n_query_groups": 1 if config.multi_query else config.num_attention_heads,
            "bias": config.bias,
            "shared_attention_norm": config.parallel_attn,
            "norm_eps": config.layer_norm_epsilon,
            "intermediate_size": config.ffn_hidden_size,
        }
    raise ValueError(
        f"A model of type {kind!r} with {rope.get('rope_type')!r} positions is not converted here; models of the "
        "shapes of Llama, Pythia (gpt_neox) and Falcon 7B with plain rotary positions are."
    )


@torch.no_grad()
def copy_adapter(peft_model: PeftModel, gpt: "GPT") -> None:
    """Put the active LoRA adapter of PEFT into a Lit-GPT model whose switches name the same modules.

    Both then give the same logits. Of the models that `from_transformers` knows those of Llama's shape: in the others
    queries, keys and values are one module for PEFT, with one A.

    Raises:
        ValueError: the adapter is no plain LoRA, or not of the same modules, rank and scale.
    """
    adapter = peft_model.active_adapter
    layers = {
        re.sub(r"^model\.layers\.", "", name): layer
        for name, layer in peft_model.get_base_model().named_modules()
        if isinstance(layer, LoraLayer) and adapter in layer.lora_A
    }
    places = dict(_places(gpt))
    wanted = [name for names in places.values() for name in names]
    if differing := sorted(set(wanted) ^ set(layers)):
        raise ValueError(
            f"The adapters are not on the same modules: {len(differing)} are in one of them only, the first is "
            f"{differing[0]!r}. Switch on in Lit-GPT what target_modules names, and nothing else."
        )
    for module, names in places.items():
        parts = [layers[name] for name in names]
        if any(part.lora_variant or part.scaling[adapter] != module.scaling for part in parts):
            raise ValueError(
                f"{names[0]!r}: the adapter is no plain LoRA, or scales its update by {parts[0].scaling[adapter]}, and "
                f"Lit-GPT's by {module.scaling}: give both the same lora_alpha and r."
            )
        if any(part.r[adapter] != module.r for part in parts):
            raise ValueError(
                f"{names[0]!r} has rank {parts[0].r[adapter]}, Lit-GPT's {module.r}: give both the same r."
            )
        module.lora_A.copy_(torch.cat([part.lora_A[adapter].weight for part in parts]))
        module.lora_B.copy_(torch.cat([part.lora_B[adapter].weight for part in parts]))


def _places(gpt: "GPT") -> Iterator[tuple[nn.Module, list[str]]]:
    """Lit-GPT's modules that have LoRA, and the names in a Llama (behind `model.layers.`) of those they stand for."""
    for number, block in enumerate(gpt.transformer.h):
        switched = zip("qkv", block.attn.qkv.enable_lora, strict=True)
        names = {"attn.qkv": [f"self_attn.{letter}_proj" for letter, on in switched if on]}
        names |= {"attn.proj": ["self_attn.o_proj"], "mlp.fc_1": ["mlp.gate_proj"], "mlp.fc_2": ["mlp.up_proj"]}
        names |= {"mlp.proj": ["mlp.down_proj"]}
        for ours, theirs in names.items():
            if hasattr(module := block.get_submodule(ours), "lora_A"):
                yield module, [f"{number}.{name}" for name in theirs]
    if hasattr(gpt.lm_head, "lora_A"):
        yield gpt.lm_head, ["lm_head"]
