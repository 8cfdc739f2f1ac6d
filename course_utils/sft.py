"""How do I fine-tune it with TRL? Its `SFTTrainer` with the course's loss, on a CPU, a GPU or in several processes."""

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftConfig
from torch import nn
from tqdm import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.training_args import ParallelMode
from trl import SFTConfig, SFTTrainer

from course_utils import checkpoints, machine
from course_utils.chat import Example
from course_utils.training import Batch, History, check_finite, stopped, supervised_loss

DECIDING = (  # fields of SFTConfig that decide what is learned
    "per_device_train_batch_size gradient_accumulation_steps world_size learning_rate lr_scheduler_type warmup_steps "
    "optim weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm bf16 fp16 neftune_noise_alpha seed data_seed"
).split()


class SupervisedSFTTrainer(SFTTrainer):
    """TRL's trainer with `supervised_loss`: without Triton, TRL 1.16 scores every position twice and in fp32."""

    tokens_seen = 0  # by this process

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss in nats over the supervised tokens of this step, of all processes and accumulated batches."""
        self.tokens_seen += int(inputs["attention_mask"].sum())
        loss = supervised_loss(model, inputs, num_items_in_batch)
        if self.model.training:
            check_finite(loss.item(), self.state.global_step + 1, self.args.learning_rate)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the items are everybody's, and DDP averages the gradients
        return (loss, {"loss": loss}) if return_outputs else loss


class _Progress(TrainerCallback):
    """A one-line text progress bar with the loss, on stderr; looks the same in a terminal and in a notebook."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        look = {"unit": "step", "ncols": 78, "mininterval": 1.0, "disable": not state.is_world_process_zero}
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, **look)

    def on_step_end(self, *_: object, **__: object) -> None:
        self.bar.update()

    def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)

    def on_train_end(self, *_: object, **__: object) -> None:
        self.bar.close()


class _SavesOnlyNumbers(TrainerCallback):
    """A finite loss can have an infinite gradient: parameters are looked at before they go into a checkpoint."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **_: object
    ) -> None:
        if control.should_save and not all(p.isfinite().all() for p in model.parameters() if p.requires_grad):
            raise stopped(f"After step {state.global_step} a trained parameter is nan or infinite", args.learning_rate)


def sft_trainer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    output_dir: str | Path,
    *,
    peft_config: PeftConfig | None = None,
    **options: object,
) -> SupervisedSFTTrainer:
    """An `SFTTrainer` for encoded conversations, on the device where the model lies: a CPU, a T4 or anything newer.

    Several GPUs are used by several processes (`torchrun --nproc_per_node`); in a single process, one of them.

    Args:
        examples: what `chat.encode` returns; their labels decide which tokens are trained on.
        output_dir: folder for checkpoints.
        peft_config: the adapter to add; for a 4-bit model this makes it QLoRA.
        options: fields of `trl.SFTConfig`, over the defaults of the course.

    Raises:
        ValueError: there is no example.
    """
    if not examples:
        raise ValueError(
            "The list of examples is empty. chat.encode_all says on stderr how many threads it leaves out, and why."
        )
    here = next(model.parameters()).device.type
    on_gpu = here == "cuda"
    defaults = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 8,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would write 0.0 for a loss that is not a number
        "save_strategy": "no",
        "max_length": None,  # examples are cut when they are encoded
        "use_cpu": here == "cpu",
        "bf16": on_gpu and machine.has_native_bf16("cuda"),
        "fp16": on_gpu and not machine.has_native_bf16("cuda"),
        "gradient_checkpointing": False,
        "dataloader_pin_memory": on_gpu,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
    trainer = SupervisedSFTTrainer(
        model=model,
        args=_in_one_process_on_one_gpu(SFTConfig(**{**defaults, **options})),
        train_dataset=Dataset.from_list(list(examples)),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    for parameter in trainer.model.parameters():  # fp16's gradient scaler cannot handle bf16 adapters
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_Progress())
    trainer.add_callback(_SavesOnlyNumbers())
    return trainer


def _in_one_process_on_one_gpu(args: SFTConfig) -> SFTConfig:
    """transformers would copy the model to all visible GPUs (`nn.DataParallel`), and TRL refuses to run like that."""
    if args.parallel_mode == ParallelMode.NOT_DISTRIBUTED:
        print(
            f"{args.n_gpu} GPUs are visible; this process trains on one. `torchrun --nproc_per_node {args.n_gpu}` "
            "with a script uses them all.",
            file=sys.stderr,
        )
        args._n_gpu = 1  # what transformers itself does for a model that lies on several devices
    return args


def run(trainer: SupervisedSFTTrainer) -> History:
    """Train; if the output folder holds a checkpoint of an interrupted run, go on from there.

    Losses are those of the whole run, in nats per supervised token; tokens, of all processes, and seconds are those
    since the last start. The model is left without the trainer's wrapper for mixed precision.

    Raises:
        ValueError: the output folder holds checkpoints of another run; names what differs.
        FloatingPointError: the loss became nan or infinite; names the step. Nothing is saved from there on.
    """
    folder = Path(trainer.args.output_dir)
    checkpoint, identity = checkpoints.last_whole(folder), _identity(trainer)
    if checkpoint:
        checkpoints.check_same_run(folder, identity)
    elif trainer.is_world_process_zero():
        checkpoints.claim(folder, identity)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - start
    # autocast stays on the model otherwise: its logits would differ from those of the same adapter loaded again
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    tokens = trainer.accelerator.reduce(torch.tensor(trainer.tokens_seen, device=trainer.args.device))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return History(losses, int(tokens), seconds)


def _identity(trainer: SupervisedSFTTrainer) -> dict[str, object]:
    """What decides a run: its settings, model and adapter, and a hash of its data."""
    args = trainer.args
    settings = {name: getattr(args, name) for name in DECIDING}
    if args.lr_scheduler_type != "constant":  # such a schedule looks ahead to the end
        settings |= {"max_steps": args.max_steps, "num_train_epochs": args.num_train_epochs}
    return {
        **settings,
        "model": trainer.model.config._name_or_path,
        "adapter": {name: config.to_dict() for name, config in getattr(trainer.model, "peft_config", {}).items()},
        "data": hashlib.sha256(json.dumps(list(trainer.train_dataset)).encode()).hexdigest(),
    }
