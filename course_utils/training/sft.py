"""How do I fine-tune it with TRL? Its `SFTTrainer` with the course's loss, on a CPU, a GPU or in several processes."""

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import Sampler
from transformers import PrinterCallback, ProgressCallback
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.training_args import ParallelMode
from trl import SFTConfig, SFTTrainer

from course_utils import machine
from course_utils.batches import Batch, GroupedSampler, check_examples, mean_items, supervised_loss
from course_utils.chat import Example
from course_utils.training import checkpoints
from course_utils.training.callbacks import Finished, Progress, StopsWhereItEnded
from course_utils.training.fast import fast_step
from course_utils.training.loop import History, check_finite, stopped
from course_utils.training.prepare import adapter_config
from course_utils.training.recipe import Recipe

FROM_RECIPE = {  # fields of SFTConfig, and those of the recipe that they follow
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "train_sampling_strategy": "batch_order",
    "max_steps": "steps",
    "learning_rate": "lr",
    "lr_scheduler_type": "schedule",
    "warmup_steps": "warmup_steps",
    "optim": "optim",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "seed": "seed",
}
NOT_HERE = ("packing", "padding_free", "label_smoothing_factor", "save_only_model")  # options that are not supported


class SupervisedSFTTrainer(SFTTrainer):
    """TRL's trainer with `supervised_loss`: without Triton, TRL 1.16 scores every position twice and in fp32."""

    tokens_seen = 0  # by this process
    has_run = False
    mean_items: float | None = None  # see batches.mean_items

    def __init__(self, **options: Any) -> None:
        self.in_16_bits: list[tuple[nn.Parameter, torch.dtype]] = []  # see _train_in_fp32
        super().__init__(**options)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = [len(ids) for ids in (train_dataset or self.train_dataset)["input_ids"]]
        return GroupedSampler(lengths, self.args.train_batch_size * self.args.world_size, self.args.seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss in nats over the supervised tokens of this step, of all processes and accumulated batches."""
        if return_outputs:
            return super().compute_loss(model, inputs, True, num_items_in_batch)
        with fast_step(model, inputs["input_ids"].shape[1]):
            loss = supervised_loss(model, inputs, num_items_in_batch)
        if self.model.training:
            self.tokens_seen += int(inputs["attention_mask"].sum())
            check_finite(loss.item(), self.state.global_step + 1, self.args.learning_rate)
            loss = self._weighted(loss, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the items are everybody's, and DDP averages the gradients
        return loss

    def _weighted(self, loss: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
        """The same value, which is what the log shows, with gradients that weigh as many tokens as the step has."""
        if self.mean_items is None or num_items is None:
            return loss
        usual = self.mean_items * self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        usual *= self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return loss.detach() + num_items / usual * (loss - loss.detach())

    def _save_checkpoint(self, *arguments: object) -> None:
        """A finite loss can have an infinite gradient: parameters are looked at before they go into a checkpoint."""
        if not all(p.isfinite().all() for p in self.model.parameters() if p.requires_grad):
            what = f"After step {self.state.global_step} a trained parameter is nan or infinite"
            raise stopped(what, self.args.learning_rate)
        super()._save_checkpoint(*arguments)


def sft_trainer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    output_dir: str | Path,
    recipe: Recipe,
    **options: object,
) -> SupervisedSFTTrainer:
    """An `SFTTrainer` for encoded conversations, on the device where the model lies: a CPU, a T4 or anything newer.

    Several GPUs are used by several processes (`torchrun --nproc_per_node`); in a single process, one of them.

    Args:
        examples: what `chat.encode` returns; their labels decide which tokens are trained on.
        output_dir: folder for checkpoints.
        recipe: what concerns the steps is read, and its adapter is added; for a 4-bit model this makes it QLoRA.
        options: other fields of `trl.SFTConfig`, over the defaults of the course.

    Raises:
        ValueError: there is no example, no step, an option that is the recipe's to say, or one that the course's loss
            or `run` cannot serve.
    """
    if double := [name for name in (*FROM_RECIPE, "num_train_epochs", "peft_config") if name in options]:
        raise ValueError(f"{', '.join(double)}: the recipe says that; see training.Recipe.")
    if not recipe.steps:
        raise ValueError("The recipe has 0 steps, so there is nothing to train.")
    if refused := [name for name in NOT_HERE if options.get(name)]:
        raise ValueError(f"{', '.join(refused)}: not supported here; use trl.SFTTrainer itself, or leave it out.")
    if options.get("loss_type", "nll") != "nll":
        raise ValueError("loss_type has to be 'nll' here; use trl.SFTTrainer itself for other losses.")
    check_examples(examples)
    here = next(model.parameters()).device.type
    on_gpu = here == "cuda"
    native_bf16 = on_gpu and machine.has_native_bf16("cuda")
    defaults = {
        "output_dir": str(output_dir),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would write 0.0 for a loss that is not a number
        "save_strategy": "no",
        "max_length": None,  # examples are cut when they are encoded
        "use_cpu": here == "cpu",
        "bf16": native_bf16,
        "fp16": on_gpu and not native_bf16,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": on_gpu,
        "report_to": "none",
        "disable_tqdm": True,
    }
    settings = {name: getattr(recipe, field) for name, field in FROM_RECIPE.items()}
    torch.manual_seed(recipe.seed)  # the adapter's start
    trainer = SupervisedSFTTrainer(
        model=model,
        args=_in_one_process_on_one_gpu(SFTConfig(**{**defaults, **options, **settings})),
        train_dataset=Dataset.from_list(list(examples)),
        processing_class=tokenizer,
        peft_config=adapter_config(recipe),
    )
    trainer.recipe = recipe
    trainer.mean_items = mean_items(examples, recipe.batch_order)
    _train_in_fp32(trainer)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    for callback in (StopsWhereItEnded(), Progress()):
        trainer.add_callback(callback)
    return trainer


def _train_in_fp32(trainer: SupervisedSFTTrainer) -> None:
    """Put into fp32 what is trained: fp16's gradient scaler cannot handle bf16, and small updates would be lost.

    LoRA's layers, and models trained as a whole, work so anywhere. Other parameters, between layers in 16 bits, do only
    under autocast: `run` puts them back into the format of those layers.
    """
    model, args = trainer.model, trainer.args
    frozen = [p.dtype for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for name, parameter in model.named_parameters():
        between = bool(frozen) and "lora_" not in name
        if parameter.requires_grad and (args.bf16 or args.fp16 or not between):
            parameter.data = parameter.data.float()
            if between:
                trainer.in_16_bits.append((parameter, frozen[0]))


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
        ValueError: the trainer has run already, or the output folder holds checkpoints of another run; names what
            differs.
        FloatingPointError: the loss became nan or infinite; names the step. Nothing is saved from there on.
    """
    if trainer.has_run:  # accelerate wraps a model for mixed precision only once
        raise ValueError(
            "This trainer has run already. Make a new one with sft_trainer; it goes on from the last checkpoint, if "
            "one was saved (save_strategy='steps')."
        )
    trainer.has_run = True
    folder = Path(trainer.args.output_dir)
    checkpoint, saves = checkpoints.last_whole(folder), trainer.args.save_strategy != "no"
    described = checkpoints.identity(trainer, trainer.recipe) if checkpoint or saves else {}
    if checkpoint:
        checkpoints.check_same_run(folder, described)
    elif saves and trainer.is_world_process_zero():
        checkpoints.claim(folder, described)
    start = time.perf_counter()
    try:
        with contextlib.suppress(Finished):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        _unwrap(trainer)
    seconds = time.perf_counter() - start
    tokens = trainer.accelerator.reduce(torch.tensor(trainer.tokens_seen, device=trainer.args.device))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return History(losses, int(tokens), seconds)


def _unwrap(trainer: SupervisedSFTTrainer) -> None:
    """Take off what training put on the model; otherwise its logits would differ from those of a model loaded again."""
    forward = trainer.model.__dict__.pop("_original_forward", None)  # accelerate's autocast
    if forward is not None:
        trainer.model.forward = forward
    for parameter, dtype in trainer.in_16_bits:
        parameter.data = parameter.data.to(dtype)
