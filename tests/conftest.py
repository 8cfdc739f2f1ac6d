"""What the tests share: the model and tokenizer, loaded once, and definitions taken from the notebooks."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from course_utils import chat, datafiles, loading


@pytest.fixture(scope="session")
def tokenizer():
    return loading.load_tokenizer()


@pytest.fixture(scope="session")
def _shared_model():
    return loading.load_model(precision="fp32", device="cpu")


@pytest.fixture
def model(_shared_model: nn.Module) -> Iterator[nn.Module]:
    """The default model in fp32, one for all tests; a test that changes it fails."""
    yield from unchanged(_shared_model)


def unchanged(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a model; on its return, fail if it is not in the condition that it was in."""
    before = condition(model)
    yield model
    changed = [name for name, state in condition(model).items() if state != before[name]]
    model.eval().zero_grad(set_to_none=True)  # what can be mended for the next test
    if changed:
        pytest.fail(f"The test changed the shared model: {', '.join(changed)}. Use a model of its own, or put it back.")


def condition(model: nn.Module) -> dict[str, object]:
    """Layers (an adapter adds some), their modes and hooks; of every weight its gradient, and a few of its values."""
    modules, weights = dict(model.named_modules()), dict(model.named_parameters())
    return {
        "mode": {name: module.training for name, module in modules.items()},
        "hooks": [name for name, module in modules.items() if module._forward_hooks or module._forward_pre_hooks],
        "gradients": {name: (weight.requires_grad, weight.grad is None) for name, weight in weights.items()},
        "weights": {
            name: weight.detach().flatten()[:: weight.numel() // 8 or 1].tolist() for name, weight in weights.items()
        },
    }


@pytest.fixture(scope="session")
def examples(tokenizer) -> list[chat.Example]:
    """Eight short encoded dates."""
    return chat.encode_answers(datafiles.load_task("dates", "train")[:8], tokenizer)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> str:
    """The device of the tests marked `gpu`, which the CPU profile would keep them from."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    return "cuda"


SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")


def toy_tokenizer(
    *, start: str = "", end: str = "", metaspace: bool = False, special: Sequence[str] = SPECIAL, **names: str
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with GPT-2's word boundaries, or a Llama-like one with `metaspace`; needs no file.

    Args:
        start, end: special tokens that it puts around plain text by itself, as Llama and Gemma do with `<s>`.
        names: `bos_token`, `eos_token`, `pad_token`, as far as it shall have them.
    """
    letters = sorted({*pre_tokenizers.ByteLevel.alphabet(), "▁", "\n"})
    merges = [("Ċ", "Ċ"), ("ĊĊ", "Ċ"), ("Ġ", "Ġ"), (":", "Ġ"), ("#", "#"), ("h", "e"), ("Ġ", "he"), ("▁", "he")]
    tokens = [*letters, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    if metaspace:
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    around = [(token, backend.token_to_id(token)) for token in (start, end) if token]
    if around:
        pattern = f"{start} $A {end}".strip()
        backend.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=around)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def tiny(vocab_size: int = 64, hidden_size: int = 32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": hidden_size, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, num_key_value_heads=2, pad_token_id=0, **shape))


def made_examples(count: int = 12) -> list[chat.Example]:
    """Examples of different lengths, the first third of each masked."""
    rows = [torch.randint(3, 64, (6 + n,), generator=torch.Generator().manual_seed(n)).tolist() for n in range(count)]
    return [{"input_ids": row, "labels": [-100] * (len(row) // 3) + row[len(row) // 3 :]} for row in rows]


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
