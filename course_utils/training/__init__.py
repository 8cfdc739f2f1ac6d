"""How do I fine-tune it? Names are handed on when they are asked for: the plain loop needs no TRL."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "card": ["Run", "model_card"],
        "kept": ["keep", "kept"],
        "loop": ["History", "fit", "trainable_parameters"],
        "prepare": ["adapter_config", "prepare_model"],
        "recipe": ["LORA", "Recipe", "read_recipe"],
        "sft": ["SupervisedSFTTrainer", "run", "sft_trainer"],
        "shipped": ["check_shipped"],
        "traps": ["Finding", "check"],
    },
)
