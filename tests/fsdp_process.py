"""A process of `two_processes.spread`: torchrun fsdp_process.py FOLDER."""

import os
import sys
from pathlib import Path

import torch
from peft import get_peft_model
from torch import distributed
from torch.distributed.fsdp import fully_shard

from course_utils import batches, loading
from course_utils.training import Recipe, adapter_config
from tests.conftest import made_examples

ADAPTER = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": "all-linear"}


def own_bytes(model: torch.nn.Module) -> int:
    """Of what lies in this process."""
    tensors = [p.to_local() if hasattr(p, "to_local") else p for p in model.parameters()]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    found = {}
    for precision in ("bf16", "nf4-dq"):
        torch.manual_seed(0)
        model = loading.load_model(str(folder / "base"), precision, compute_dtype=torch.bfloat16, device="cpu")
        model = get_peft_model(model, adapter_config(Recipe(adapter=ADAPTER, steps=1, lr=1e-3)))
        batch = batches.collate(made_examples(4))
        alone, whole = batches.supervised_loss(model, batch).item(), own_bytes(model)
        for layer in model.base_model.model.model.layers:
            fully_shard(layer)
        fully_shard(model)
        spread = batches.supervised_loss(model, batch)
        spread.backward()
        gradients = [p.grad is not None for p in model.parameters() if p.requires_grad]
        found[precision] = {
            "processes": distributed.get_world_size(),
            "bytes": (whole, own_bytes(model)),
            "losses": (alone, spread.item()),
            "gradients": all(gradients),
        }
    if distributed.get_rank() == 0:
        torch.save(found, folder / "left.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
