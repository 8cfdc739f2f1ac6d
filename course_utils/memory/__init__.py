"""What does it cost in bytes? Measured while it is there, or planned before anything is loaded."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "measured": [
            "MB",
            "Peak",
            "activation_bytes",
            "as_table",
            "count_parameters",
            "ledger",
            "measure",
            "quantization_constants",
            "row_scales",
            "tensor_bytes",
        ],
        "planned": ["Plan", "plan"],
        "published": ["published_peaks"],
        "presets": ["PRESETS"],
        "settings": ["Settings"],
    },
)
