"""Which messages of the libraries are known to mean nothing here? Those, and no others, are silenced, in this place."""

import logging
import warnings

FUTURE_WARNINGS = (
    # transformers warns about its own attribute, which PEFT and TRL read
    "`is_gradient_checkpointing` is deprecated",
    "`gradient_checkpointing` is deprecated",
    # transformers about the name by which PEFT passes it the vectors of prefix tuning
    "`?past_key_values`? is deprecated",
)
LOGGERS = (
    # an optional CPU kernel that the course does without (see loading.make_safe_to_train)
    "bitsandbytes.backends.cpu.ops",
    # one line per layer and forward pass on the cast of inputs in LLM.int8()
    "bitsandbytes.autograd._functions",
)


def quiet() -> None:
    """Silence the known noise; every other warning still shows. Torch is not imported."""
    for message in FUTURE_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
