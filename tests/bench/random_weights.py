"""What do steps of QLoRA or LoRA take on a model of any size, whose weights are random?

No weights are read. Each matrix is made on the device and quantized before the next one is made, so the whole model is
never there in 16 bits: 65 billion parameters need 35 GB, not 131.
"""

import bitsandbytes as bnb
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from course_utils import loading, memory
from course_utils.loading.precisions import quantization_config
from course_utils.memory.presets import find_config

LR = 1e-4  # of QLoRA's runs with 33 and 65 billion parameters
# AdamW of bitsandbytes computes what the paged one does, and leaves its states on the GPU, where torch counts them.
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adamw_8bit": bnb.optim.AdamW8bit, "paged_adamw": bnb.optim.AdamW}


@torch.no_grad()
def random_model(config: PreTrainedConfig, precision: str, device: str) -> PreTrainedModel:
    """A causal language model, frozen, in "bf16" or a 4-bit format of `loading.QUANTIZED`.

    It is initialized as transformers does it, and quantized as transformers does it while it loads: all linear layers
    but the head.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    if precision in loading.QUANTIZED:
        replace_with_bnb_linear(model, ["lm_head"], quantization_config(precision, torch.bfloat16))
        model.is_loaded_in_4bit = True  # PEFT asks for it
    for module in model.modules():
        if isinstance(module, Linear4bit):
            weight = torch.empty(module.weight.shape, dtype=torch.bfloat16, device=device)
            weight.normal_(std=config.initializer_range)
            module.weight = Params4bit(weight, **module.weight.__dict__).to(device)
        else:
            module.to_empty(device=device, recurse=False)
            model._init_weights(module)
    model.tie_weights()
    return loading.make_safe_to_train(model.requires_grad_(False))


def prepared(settings: memory.Settings, device: str) -> nn.Module:
    """The model of a plan with its adapter, whose update is scaled by lora_alpha / r with QLoRA's lora_alpha, 16."""
    model = random_model(find_config(settings.model), settings.precision, device)
    if settings.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    config = LoraConfig(r=settings.r, lora_alpha=16, target_modules=settings.target_modules, task_type="CAUSAL_LM")
    with torch.device(device):  # else PEFT makes the adapter on the CPU
        model = get_peft_model(model, config).train()
    if settings.adapter_precision:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(loading.DTYPES[settings.adapter_precision])
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor) -> torch.Tensor:
    """One step, and its loss; the output lives until its end, as in most loops."""
    output = model(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return output.loss.detach()


def train(settings: memory.Settings, device: str, steps: int = 3) -> tuple[list[float], int]:
    """Losses of steps on one batch of tokens that mean nothing, and the bytes that model and steps took at most."""
    with memory.measure() as peak:
        model = prepared(settings, device)
        optimizer = OPTIMIZERS[settings.optimizer]([p for p in model.parameters() if p.requires_grad], lr=LR)
        ids = torch.randint(2, 60, (settings.micro_batch, settings.length), device=device)
        losses = [step(model, optimizer, ids).item() for _ in range(steps)]
    return losses, peak.added
