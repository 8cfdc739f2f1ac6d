"""Lit-GPT beside transformers and PEFT: the same logits, the same counts, and with the same A and B the same losses."""

import pytest
import torch
from litgpt.lora import Config
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, FalconConfig, GPTNeoXConfig, LlamaConfig, MistralConfig

from course_utils import batches, lit, loading, memory
from tests.conftest import made_examples, tiny

LLAMA = {  # the module of a Llama that each switch stands for
    "lora_query": ["q_proj"],
    "lora_key": ["k_proj"],
    "lora_value": ["v_proj"],
    "lora_projection": ["o_proj"],
    "lora_mlp": ["gate_proj", "up_proj", "down_proj"],
    "lora_head": ["lm_head"],
}
IDS = torch.randint(3, 64, (3, 17), generator=torch.Generator().manual_seed(0))


def strong(model):
    """Weights so large that the attention is uneven, and a place that is wrong would show."""
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "embed" not in name:
            weight.data *= 5
    return model


def test_it_is_installed_and_says_how():
    assert lit.available()
    assert lit.INSTALL.endswith("install --no-deps -r requirements-litgpt.txt")


def test_where_it_is_missing_the_command_is_named(monkeypatch):
    monkeypatch.setattr(lit, "find_spec", lambda name: None)
    assert not lit.available()
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps -r requirements-litgpt.txt"):
        lit.from_transformers(tiny())


@torch.no_grad()
@pytest.mark.parametrize("name", [*lit.TINY, "grouped"])
def test_logits_are_those_of_transformers(name):
    """Pythia, Falcon and Vicuna; and queries that share keys and values, as in the default model."""
    model = strong(tiny() if name == "grouped" else lit.tiny(name)).eval()
    logits = lit.from_transformers(model)(IDS)
    assert model(IDS).logits.std() > 0.05
    torch.testing.assert_close(logits, model(IDS).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_logits_of_the_default_model_are_those_of_transformers(model):
    ids = torch.arange(1000, 1040)[None]
    gpt = lit.from_transformers(model)
    torch.testing.assert_close(gpt(ids), model(ids).logits, rtol=0, atol=1e-4)
    assert memory.count_parameters(gpt) == memory.count_parameters(model) + 49152 * 576, "the head is its own"


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("SmolLM2-135M-Instruct", None),
        (
            "pythia-70m",
            GPTNeoXConfig(hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048),
        ),
        ("falcon-7b", FalconConfig()),
        ("Llama-2-7b-hf", LlamaConfig(rms_norm_eps=1e-5, max_position_embeddings=4096)),  # what Vicuna is made of
    ],
)
def test_shapes_are_those_that_lit_gpt_brings_for_the_published_models(name, config):
    config = config or AutoConfig.from_pretrained(loading.default_model_dir())
    built_in, ours = vars(Config.from_name(name)), vars(Config(**lit.config_of(config)))
    assert ours.pop("norm_eps") == pytest.approx(built_in.pop("norm_eps"))  # the default model's was stored in 32 bits
    other = {"name", "hf_config", "vocab_size", "padded_vocab_size", "padding_multiple"}
    assert {k: v for k, v in ours.items() if k not in other} == {k: v for k, v in built_in.items() if k not in other}


@pytest.mark.parametrize("switch", LLAMA)
def test_each_switch_trains_as_many_numbers_as_peft_on_the_same_modules(switch):
    gpt = lit.from_transformers(tiny(), lora_r=4, **{switch: True})
    peft = get_peft_model(tiny(), LoraConfig(r=4, target_modules=LLAMA[switch]))
    assert memory.count_parameters(gpt, trainable=True) == memory.count_parameters(peft, trainable=True) > 0


def test_where_queries_keys_and_values_are_one_module_peft_trains_one_a_and_lit_gpt_three():
    """Pythia: r (d + 3 d) against 3 r (d + d)."""
    attention = {"lora_query": True, "lora_key": True, "lora_value": True}
    gpt = lit.from_transformers(lit.tiny("pythia"), lora_r=4, **attention)
    peft = get_peft_model(lit.tiny("pythia"), LoraConfig(r=4, target_modules=["query_key_value"]))
    assert memory.count_parameters(peft, trainable=True) == 2 * 4 * (64 + 3 * 64)
    assert memory.count_parameters(gpt, trainable=True) == 2 * 3 * 4 * (64 + 64)


def adapted(model, targets, seed=1, **options):
    """A PEFT model with an adapter that does something, and no dropout."""
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, target_modules=targets, **options))
    torch.manual_seed(seed)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn_like(parameter)
    return peft


@pytest.mark.parametrize("switches", [["lora_query", "lora_value"], ["lora_key"], list(LLAMA)], ids="+".join)
def test_with_the_same_adapter_the_losses_and_gradients_are_those_of_peft(switches):
    base, targets = strong(tiny()), [module for switch in switches for module in LLAMA[switch]]
    gpt = lit.from_transformers(base, lora_r=4, lora_alpha=12, **dict.fromkeys(switches, True))
    peft = adapted(base, targets)
    lit.copy_adapter(peft, gpt)
    batch = batches.collate(made_examples(5))
    loss = cross_entropy(gpt(batch["input_ids"])[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    theirs = peft(**batch).loss
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    plain = tiny()
    assert abs(strong(plain)(**batch).loss.item() - loss.item()) > 1e-3, "the adapter does something"
    loss.backward()
    theirs.backward()
    norms = [
        sum(p.grad.square().sum().item() for name, p in each.named_parameters() if "lora_" in name)
        for each in (gpt, peft)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert not [name for name, p in gpt.named_parameters() if p.grad is not None and "lora_" not in name]


@pytest.mark.parametrize(
    ("targets", "options", "words"),
    [
        (["q_proj"], {}, r"2 are in one of them only, the first is '0.self_attn.v_proj'"),
        (["q_proj", "v_proj", "o_proj"], {}, r"the first is '0.self_attn.o_proj'.*target_modules"),
        (["q_proj", "v_proj"], {"use_dora": True}, "no plain LoRA"),
        (["q_proj", "v_proj"], {"use_rslora": True}, "scales its update by 6.0, and Lit-GPT's by 3.0"),
        (["q_proj", "v_proj"], {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 6}}, "has rank .* same r"),
    ],
    ids=["fewer", "more", "dora", "rslora", "rank"],
)
def test_an_adapter_that_does_not_fit_is_refused(targets, options, words):
    gpt = lit.from_transformers(tiny(), lora_r=4, lora_alpha=12, lora_query=True, lora_value=True)
    with pytest.raises(ValueError, match=words):
        lit.copy_adapter(adapted(tiny(), targets, **options), gpt)


def test_the_model_that_it_was_made_from_is_not_touched():
    base = tiny()
    gpt = lit.from_transformers(base, lora_mlp=True)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.add_(1)
    for parameter, before in zip(base.parameters(), tiny().parameters(), strict=True):
        assert torch.equal(parameter, before)


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="of type 'mistral' with 'default' positions is not converted here"):
        lit.config_of(MistralConfig())
    with pytest.raises(ValueError, match="with 'linear' positions"):
        lit.config_of(LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}))
    with pytest.raises(ValueError, match="Unknown family 'gpt2'; choose from pythia, falcon, vicuna"):
        lit.tiny("gpt2")


def test_tiny_models_are_the_same_each_time_and_leave_the_random_numbers_alone():
    torch.manual_seed(5)
    first, drawn = lit.tiny("pythia"), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    for one, two in zip(first.parameters(), lit.tiny("pythia").parameters(), strict=True):
        assert torch.equal(one, two)
