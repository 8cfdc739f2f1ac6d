"""Which messages of the libraries are known to mean nothing here? Those, and no others, are silenced, in this place."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

WARNINGS = (
    # transformers warns about its own attribute, which PEFT and TRL read
    ("`is_gradient_checkpointing` is deprecated", FutureWarning),
    ("`gradient_checkpointing` is deprecated", FutureWarning),
    # and about the names by which everybody turns it on and off
    ("`gradient_checkpointing_(en|dis)able` is deprecated", FutureWarning),
    # transformers about the name by which PEFT passes it the vectors of prefix tuning
    ("`?past_key_values`? is deprecated", FutureWarning),
    # PEFT about the width of a norm, which it asks for at every layer, and which LN tuning has no use for
    ("Unsupported layer type .*RMSNorm", UserWarning),
    # PEFT asks the hub for the default model's vocabulary at every save. Without a network it says so, twice, and saves
    # all the same. (Who adds tokens to that model passes `save_embedding_layers=True`.)
    ("(?s)Unable to fetch remote file .* in HuggingFaceTB/SmolLM2-135M-Instruct", UserWarning),
    ("Could not find a config file in HuggingFaceTB/SmolLM2-135M-Instruct", UserWarning),
)
LOGGERS = (
    # an optional CPU kernel that the course does without (see loading.make_safe_to_train)
    "bitsandbytes.backends.cpu.ops",
    # one line per layer and forward pass on the cast of inputs in LLM.int8()
    "bitsandbytes.autograd._functions",
)


@contextmanager
def of_unpadded_prompts() -> Iterator[None]:
    """While it lasts, PEFT does not warn that behind virtual tokens it leaves positions out.

    Only for prompts without padding, whose positions are those that the model counts by itself. Where there is padding
    the warning means what it says, so it is not among `WARNINGS`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported", category=UserWarning)
        yield


def quiet() -> None:
    """Silence the known noise; every other warning still shows. Torch is not imported."""
    for message, category in WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
