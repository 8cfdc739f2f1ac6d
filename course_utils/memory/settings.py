"""What decides how many bytes a training step takes?"""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from course_utils import loading

METHODS = ("full", "lora", "qlora")
PRECISIONS = ("fp32", "bf16", "fp16", "bf16-mixed", *loading.QUANTIZED)
ATTENTION = ("eager", "sdpa", "flash")
SHARDING = ("ddp", "fsdp")
FRAMEWORKS = ("transformers", "litgpt", "torchtune")
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a plan depends on. Units: `length` in tokens, `gpu_gb` in GB of 10^9 bytes.

    Args:
        model: a name of `PRESETS`, a size such as "7B", a folder, an id of the hub, or a configuration.
        method: "full", "lora", or "qlora".
        precision: of the weights: "fp32", "bf16", "fp16", "bf16-mixed" (32-bit weights, computed in bf16), or a format
            of `loading.QUANTIZED`. By default "nf4-dq" for QLoRA, else "bf16".
        r, target_modules: of the adapter, as PEFT takes them.
        adapter_precision: of the adapter's weights; by default what the framework gives it (PEFT: "fp32").
        optimizer: "adamw" has two numbers for each trained one, in its format; "adamw_8bit" has two bytes;
            "paged_adamw" has two in 32 bits, which may leave the GPU; "paged_adamw_8bit" is both.
        micro_batch: sequences of one forward pass, on each GPU.
        accumulation: micro-batches of one step; with more than one, gradients stay from one to the next.
        checkpointing: keep of each layer its input alone, and compute the rest again.
        chunked_loss: compute the loss on some of the tokens at a time (compiled, or by a fused kernel), so that of all
            logits nothing is kept but themselves.
        attention: "eager" keeps scores for every pair of tokens; "sdpa" and "flash" are fused kernels that do not.
        gpus, sharding: "ddp" has everything on each GPU, "fsdp" a part of the weights, gradients and states.
        framework: whose code runs: "transformers" (with PEFT), "litgpt" or "torchtune".
        gpu_gb: memory of one GPU.

    Raises:
        ValueError: a value that cannot be; names it and the way out.
    """

    model: str | PreTrainedConfig
    method: str = "lora"
    precision: str | None = None
    r: int = 16
    target_modules: str | tuple[str, ...] = "all-linear"
    adapter_precision: str | None = None
    optimizer: str = "adamw"
    micro_batch: int = 1
    length: int = 512
    accumulation: int = 1
    checkpointing: bool = False
    chunked_loss: bool = False
    attention: str = "sdpa"
    gpus: int = 1
    sharding: str = "ddp"
    framework: str = "transformers"
    gpu_gb: float | None = None

    def __post_init__(self) -> None:
        self._choose("method", METHODS)
        if self.precision is None:
            object.__setattr__(self, "precision", "nf4-dq" if self.method == "qlora" else "bf16")
        for name, choices in (
            ("precision", PRECISIONS),
            ("optimizer", OPTIMIZERS),
            ("attention", ATTENTION),
            ("sharding", SHARDING),
            ("framework", FRAMEWORKS),
        ):
            self._choose(name, choices)
        if self.adapter_precision is not None:
            self._choose("adapter_precision", tuple(loading.DTYPES))
        for name in ("r", "micro_batch", "length", "accumulation", "gpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be 1 or more.")
        if self.gpu_gb is not None and self.gpu_gb <= 0:
            raise ValueError(f"gpu_gb is {self.gpu_gb:g}; it has to be the memory of one GPU in GB, such as 24.")
        quantized = self.precision in loading.QUANTIZED
        if quantized != (self.method == "qlora"):
            fitting = "bf16" if quantized else "nf4-dq"
            raise ValueError(
                f"method {self.method!r} with precision {self.precision!r}: quantized weights are trained through an "
                f"adapter, and that is 'qlora'. Take precision={fitting!r}, or "
                f"method={'qlora' if quantized else 'lora'!r}."
            )

    def _choose(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"Unknown {name} {getattr(self, name)!r}; choose from {', '.join(choices)}.")

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.micro_batch * self.length
