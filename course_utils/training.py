"""How do I fine-tune it? A plain loop for notebooks 01 to 03, TRL's `SFTTrainer` for 04, and one loss for both."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from course_utils import machine
from course_utils.chat import IGNORE, Example

Batch = dict[str, torch.Tensor]


@dataclass
class History:
    """What a training run leaves behind: loss per step (nats per supervised token), tokens seen, seconds."""

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def collate(examples: Sequence[Example], pad_token_id: int = 0) -> Batch:
    """Right-padded tensors of shape (batch, length); padding has label -100 and attention mask 0.

    Padding is decided by length, never by token id, so a pad token that equals the end-of-sequence token does no harm.
    """
    length = max(len(example["input_ids"]) for example in examples)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (length - len(row)) for row in values])

    return {
        "input_ids": padded([example["input_ids"] for example in examples], pad_token_id),
        "attention_mask": padded([[1] * len(example["input_ids"]) for example in examples], 0),
        "labels": padded([example["labels"] for example in examples], IGNORE),
    }


def token_losses(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Loss in nats of every supervised token of a batch, as one vector.

    The logits are the largest tensor of a step (batch x length x vocabulary), and most positions have no label, so the
    head is asked only for the columns that some row needs. Columns count from the end, because prompt tuning and its
    kin put virtual tokens in front.
    """
    labels = batch["labels"]
    columns = (labels[:, 1:] != IGNORE).any(dim=0).nonzero().squeeze(1)  # column j predicts token j + 1
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=columns - labels.shape[1], use_cache=False).logits
    targets = labels[:, columns + 1]
    counted = targets != IGNORE
    return cross_entropy(logits[counted].float(), targets[counted], reduction="none")


def supervised_loss(model: nn.Module, batch: Batch, num_items: torch.Tensor | int | None = None) -> torch.Tensor:
    """Mean loss in nats over the supervised tokens; equal to the model's own loss, for less work.

    `num_items` replaces the number of supervised tokens as divisor (gradient accumulation).
    """
    losses = token_losses(model, batch)
    return losses.sum() / (losses.numel() if num_items is None else num_items)


def batches(examples: Sequence[Example], batch_size: int, seed: int) -> Iterator[list[Example]]:
    """Shuffled batches without end; each pass over the data has its own order, fixed by `seed`."""
    order = random.Random(seed)
    while True:
        shuffled = order.sample(list(examples), len(examples))
        for start in range(0, len(shuffled) - batch_size + 1, batch_size):
            yield shuffled[start : start + batch_size]


def fit(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    steps: int,
    lr: float,
    batch_size: int = 8,
    seed: int = 0,
    max_grad_norm: float = 1.0,
    on_step: Callable[[int, float], None] | None = None,
) -> History:
    """Train the parameters that require gradients, with AdamW at a constant rate; what the first three notebooks use.

    The model is switched to train mode and left there. The progress bar goes to stderr.

    Raises:
        ValueError: fewer examples than one batch, or nothing to train.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("No parameter requires a gradient: add an adapter, or unfreeze the model.")
    if len(examples) < batch_size:
        raise ValueError(f"{len(examples)} examples do not fill one batch of {batch_size}.")
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.0)
    device = next(model.parameters()).device
    history, source = History(), batches(examples, batch_size, seed)
    model.train()
    start = time.perf_counter()
    with tqdm(total=steps, unit="step", ncols=78, mininterval=1.0) as bar:
        for step in range(steps):
            batch = {name: tensor.to(device) for name, tensor in collate(next(source)).items()}
            loss = supervised_loss(model, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(trainable, max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            history.losses.append(loss.item())
            history.tokens += int(batch["attention_mask"].sum())
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
            if on_step:
                on_step(step, loss.item())
    history.seconds = time.perf_counter() - start
    return history


class SupervisedSFTTrainer(SFTTrainer):
    """TRL's trainer with `supervised_loss`: without Triton, TRL 1.16 scores every position twice and in fp32."""

    tokens_seen = 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.tokens_seen += int(inputs["attention_mask"].sum())
        loss = supervised_loss(model, inputs, num_items_in_batch)
        return (loss, {"loss": loss}) if return_outputs else loss


class _Progress(TrainerCallback):
    """A one-line text progress bar with the loss, on stderr; looks the same in a terminal and in a notebook."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", ncols=78, mininterval=1.0)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def sft_trainer(
    model: nn.Module,
    tokenizer,
    examples: Sequence[Example],
    output_dir: str | Path,
    *,
    peft_config=None,
    **options: object,
) -> SupervisedSFTTrainer:
    """An `SFTTrainer` for encoded conversations that runs on a CPU, a T4 or anything newer.

    Args:
        examples: what `chat.encode` returns; their labels decide which tokens are trained on.
        output_dir: folder for checkpoints.
        peft_config: the adapter to add; for a 4-bit model this makes it QLoRA.
        options: fields of `trl.SFTConfig`, over the defaults of the course.
    """
    on_gpu = machine.device() == "cuda"
    defaults = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 8,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "max_length": None,  # examples are cut when they are encoded
        "use_cpu": machine.device() == "cpu",
        "bf16": on_gpu and machine.has_native_bf16(),
        "fp16": on_gpu and not machine.has_native_bf16(),
        "gradient_checkpointing": False,
        "dataloader_pin_memory": on_gpu,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
    trainer = SupervisedSFTTrainer(
        model=model,
        args=SFTConfig(**{**defaults, **options}),
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
    return trainer


def run(trainer: SupervisedSFTTrainer) -> History:
    """Train; if the output folder holds a checkpoint of an interrupted run, go on from there.

    Losses are those of the whole run, tokens and seconds those since the last start.
    """
    folder = trainer.args.output_dir
    checkpoint = get_last_checkpoint(folder) if Path(folder).is_dir() else None
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - start
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return History(losses, trainer.tokens_seen, seconds)
