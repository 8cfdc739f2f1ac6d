"""A process of `two_processes.trained`: torchrun sft_process.py FOLDER PER_DEVICE ORDER."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import TrainerCallback

from course_utils import loading, training
from tests.conftest import made_examples, tiny
from tests.test_sft import RECIPE, adapters


class KeepFirstGradients(TrainerCallback):
    """The gradients of the first step, after the processes have averaged them."""

    def on_pre_optimizer_step(self, args, state, control, *, model, **_) -> None:
        if state.global_step == 0:
            self.found = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def main(folder: Path, per_device: int, order: str) -> None:
    trainer = training.sft_trainer(
        tiny(49152),
        loading.load_tokenizer(),
        made_examples(),
        folder,
        replace(RECIPE, batch_size=per_device, batch_order=order, max_grad_norm=0.0),
    )
    keeper = KeepFirstGradients()
    trainer.add_callback(keeper)
    before, history = adapters(trainer.model), training.run(trainer)
    if trainer.is_world_process_zero():
        left = {
            "processes": trainer.args.world_size,
            "gradients": keeper.found,
            "losses": history.losses,
            "tokens": history.tokens,
            "before": before,
            "after": adapters(trainer.model),
        }
        torch.save(left, folder / "left.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
