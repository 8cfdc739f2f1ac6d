"""How does a step compute the same in less time? In the format of the base, and with the attention that suits it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from peft import PeftModel, PeftType
from peft.helpers import disable_input_dtype_casting
from torch import nn
from transformers import PreTrainedModel

EAGER_UP_TO = 256  # tokens; beyond, the scores that eager attention keeps (length x length) outweigh what it saves


@contextmanager
def fast_step(model: nn.Module, length: int) -> Iterator[None]:
    """Run the forward pass of one training step in it; `length` in tokens. A base in 32 bits computes as ever.

    PEFT keeps LoRA's matrices in fp32, and casts every input of theirs to fp32 as well. Autocast casts the matrices
    instead, which are far smaller, and their gradients come back in fp32: the optimizer still sees fp32 parameters, so
    small updates are not lost. On a CPU, 16-bit attention of short sequences is faster written out ("eager"). With
    gradient checkpointing all is as ever: it runs layers again in the backward pass, when this has come to its end.
    """
    bare = getattr(model, "module", model)  # several processes: the model inside DistributedDataParallel
    weight = next(bare.parameters())  # the embedding, in the format of all that is not quantized
    if weight.dtype not in (torch.bfloat16, torch.float16) or getattr(bare, "is_gradient_checkpointing", False):
        yield
        return
    with ExitStack() as stack:
        if _is_lora(bare):
            stack.enter_context(torch.autocast(weight.device.type, weight.dtype))
            stack.enter_context(disable_input_dtype_casting(bare))
        base = bare.get_base_model() if isinstance(bare, PeftModel) else bare
        if weight.device.type == "cpu" and length <= EAGER_UP_TO and isinstance(base, PreTrainedModel):
            stack.enter_context(_eager_attention(base))
        yield


def _is_lora(model: nn.Module) -> bool:
    """Whether the trained adapter is plain LoRA; other methods of PEFT mix formats in ways of their own."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return config is not None and config.peft_type == PeftType.LORA and not config.use_dora


@contextmanager
def _eager_attention(base: PreTrainedModel) -> Iterator[None]:
    before = base.config._attn_implementation
    base.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.set_attn_implementation(before)
