"""What do litgpt and torchtune keep, and how do their habits differ from those of transformers and PEFT?

Neither is installed here, so what their layers keep is written out, number for number, from their source: litgpt as of
October 2023 (commit 8641822, with torch 2.1 and bitsandbytes 0.41.1), torchtune as of 2025 (torch 2.6). Each has one
layer for all its models. Which lines of litgpt's source matter was found with published peaks in view, some of which
the planner is scored on: it was not blind.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedConfig

from course_utils.memory.settings import Settings

RMS = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")  # RMS norms, and MLPs with a gate
LAYER_NORM = ("gpt_neox", "phi", "falcon")
TARGETS = ("q", "k", "v", "o", "mlp", "head")
DROPPED = 3  # bytes a number of an adapter's input in litgpt: what dropout leaves of it, and the mask


@dataclass(frozen=True)
class Kept:
    """Bytes that one micro-batch keeps: of all layers, of the largest one, the inputs of all layers, and the rest."""

    layers: int
    largest: int
    inputs: int
    rest: int


@dataclass(frozen=True)
class Habits:
    """How a framework differs, apart from what its layers keep.

    Args:
        held: bytes of each logit that stay until the step is over; None: as the model computes it.
        logits: bytes that come to that at the loss.
        adapters: the format of an adapter; None for that of the model.
        tied: whether a head that the model ties to its embedding takes no memory of its own.
        quantizes_head: whether the output head is quantized, too.
        keeps_frozen_inputs: whether a frozen quantized matrix keeps its input (bitsandbytes did before 0.43.2).
        dequantized: copies of a matrix that is dequantized, each in two bytes a number.
        head_chunk: tokens that the head takes at a time; None for all.
    """

    held: int | None = None
    logits: int = 12
    adapters: str | None = None
    tied: bool = True
    quantizes_head: bool = False
    keeps_frozen_inputs: bool = False
    dequantized: int = 1
    head_chunk: int | None = None


HABITS = {
    # The logits stay with the model's output. Kept of the loss is a log-softmax in 32 bits; backwards come its gradient
    # and that of the logits, in 32 bits as well.
    "transformers": Habits(adapters="fp32"),
    # Fabric turns the logits into 32 bits at the end of the forward pass, and the script keeps these; cross entropy
    # goes over them in chunks, so that its gradients are small. bitsandbytes 0.41.1 quantized from float16: it
    # dequantizes to that, and casts to bfloat16.
    "litgpt": Habits(
        held=4,
        logits=4,
        tied=False,
        quantizes_head=True,
        keeps_frozen_inputs=True,
        dequantized=2,
        head_chunk=128,
    ),
    # The recipe deletes the logits before the backward pass.
    "torchtune": Habits(held=0),
}


@dataclass(frozen=True)
class _Layer:
    """What decides the bytes of a layer: widths of the model, of queries, of keys and values, and of the MLP."""

    model: int
    query: int
    key: int
    mlp: int
    heads: int
    grouped: bool
    rms: bool
    norms: int
    parallel: bool


def _layer(config: PreTrainedConfig) -> _Layer:
    kind, width, heads = config.model_type, config.hidden_size, config.num_attention_heads
    if kind not in (*RMS, *LAYER_NORM):
        raise ValueError(
            f"What litgpt and torchtune keep is known for {', '.join((*RMS, *LAYER_NORM))}, and not for {kind!r}: plan "
            "it with framework='transformers'."
        )
    groups = getattr(config, "num_key_value_heads", None) or heads
    if kind == "falcon":
        groups = config.num_kv_heads if config.new_decoder_architecture else 1
    size = getattr(config, "head_dim", None) or width // heads
    shared = kind == "phi" or (kind == "falcon" and not config.new_decoder_architecture)  # one norm for both branches
    return _Layer(
        width,
        heads * size,
        groups * size,
        getattr(config, "ffn_hidden_size", None) or config.intermediate_size,
        heads,
        grouped=groups != heads,
        rms=kind in RMS,
        norms=4 if kind == "gemma2" else 1 if shared else 2,
        parallel=kind in LAYER_NORM and getattr(config, "use_parallel_residual", True),
    )


def targets(settings: Settings) -> set[str]:
    """Which of `TARGETS` have an adapter; "all-linear" are all but the head.

    Raises:
        ValueError: a name that these two frameworks do not have.
    """
    if settings.method == "full":
        return set()
    if settings.target_modules == "all-linear":
        return set(TARGETS) - {"head"}
    named = {settings.target_modules} if isinstance(settings.target_modules, str) else set(settings.target_modules)
    if unknown := named - set(TARGETS):
        raise ValueError(
            f"{settings.framework} has no target modules {', '.join(sorted(unknown))}; choose from "
            f"{', '.join(TARGETS)}."
        )
    return named


def adapter_shapes(config: PreTrainedConfig, adapted: set[str], r: int) -> Iterator[tuple[int, int, int]]:
    """Rows and columns of every matrix of an adapter, and how often the model has it."""
    layer, layers = _layer(config), config.num_hidden_layers
    mlp = [(layer.model, layer.mlp)] * (2 if layer.rms else 1) + [(layer.mlp, layer.model)]
    pairs = {
        "q": [(layer.model, layer.query)],
        "k": [(layer.model, layer.key)],
        "v": [(layer.model, layer.key)],
        "o": [(layer.query, layer.model)],
        "mlp": mlp,
        "head": [(layer.model, config.vocab_size)],
    }
    for name in sorted(adapted):
        for inputs, outputs in pairs[name]:
            times = 1 if name == "head" else layers
            yield from ((r, inputs, times), (outputs, r, times))


def kept(config: PreTrainedConfig, settings: Settings) -> Kept:
    """What litgpt or torchtune keeps, computing in 16 bits.

    Raises:
        ValueError: their layer for this model is not known here, or a setting that they do not have.
    """
    if settings.attention == "eager" or settings.precision == "fp32":
        raise ValueError(f"{settings.framework} is planned in 16 bits with fused attention alone.")
    rules = _litgpt if settings.framework == "litgpt" else _torchtune
    layer, rest = rules(_layer(config), targets(settings), settings)
    layers, tokens = config.num_hidden_layers, settings.tokens
    return Kept(layers * layer * tokens, layer * tokens, layers * 2 * config.hidden_size * tokens, rest * tokens)


def _litgpt(layer: _Layer, adapted: set[str], settings: Settings) -> tuple[int, int]:
    """Bytes a token of one layer, and of the last norm and the head; q, k and v come from one fused matrix."""
    full, r = settings.method == "full", settings.r
    frozen_inputs = settings.method == "qlora" and HABITS["litgpt"].keeps_frozen_inputs
    norm = 4 * layer.model if layer.rms else 2 * layer.model + 8  # RMS in 32 bits; layer norm as it is, mean and scale
    found = norm * (1 if layer.parallel else layer.norms)  # two norms of one tensor keep it once
    if full and layer.rms:
        found += 4 * layer.model * layer.norms  # the normalized input, for the gradient of the norm's weights
    fused = {"q": layer.query, "k": layer.key, "v": layer.key}
    if chosen := adapted & set(fused):
        found += DROPPED * layer.model + 2 * r * len(chosen)
        if len(chosen) < len(fused):
            found += 2 * sum(fused[name] for name in chosen)  # padding the update with zeros keeps what it pads
    if layer.grouped:
        found += 2 * 3 * layer.query  # rotated queries and keys, and values, each for all heads
    else:
        found += 2 * 2 * layer.query + 2 * 3 * layer.query  # rotated queries and keys; values are a view of q, k, v
    found += 2 * layer.query + 4 * layer.heads  # the output, and a number in 32 bits for each query
    found += 2 * (3 if layer.rms else 1) * layer.mlp
    if "o" in adapted:
        found += DROPPED * layer.query + 2 * r
    if "mlp" in adapted:
        found += DROPPED * (layer.model * (2 if layer.rms else 1) + layer.mlp) + 2 * r * (3 if layer.rms else 2)
    if full or frozen_inputs:
        found += 2 * layer.model * min(layer.norms, 2) + 2 * layer.mlp  # inputs of matrices; of `o` it is kept above
    rest = norm + (DROPPED * layer.model + 2 * r) * ("head" in adapted) + 2 * layer.model * (full or frozen_inputs)
    return found, rest


def _torchtune(layer: _Layer, adapted: set[str], settings: Settings) -> tuple[int, int]:
    """Bytes a token of one layer, and of the last norm and the head."""
    full, r = settings.method == "full", settings.r
    norm = 4 * layer.model + 2 * layer.model * full  # the input in 32 bits; and normalized, for the weights' gradient
    found = norm * layer.norms
    found += 2 * layer.model * (full or bool(adapted & {"q", "k", "v"}))
    found += 2 * 4 * layer.query + 4 * layer.heads  # q, k and v for all heads, the output, and a number for each query
    found += 2 * 3 * layer.mlp
    found += (2 * layer.model + 2 * layer.mlp) * (full or "mlp" in adapted)
    found += 2 * r * (len(adapted & {"q", "k", "v", "o"}) + 3 * ("mlp" in adapted))
    return found, norm + 2 * layer.model * (full or "head" in adapted)
