"""Which model, in which number format? Names are handed on when they are asked for: the cache needs no torch."""

import lazy_loader

from course_utils.core import noise

noise.quiet()  # before anything that makes it is imported

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters": ["AdapterError", "load_adapter"],
        "cache": ["ModelCacheError", "default_model_dir"],
        "models": ["load_config", "load_model", "load_tokenizer", "make_safe_to_train"],
        "precisions": ["DTYPES", "PRECISIONS", "QUANTIZED"],
        "profiles": ["with_model"],
    },
)
