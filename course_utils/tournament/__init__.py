"""Which model do judges prefer? Names are handed on when they are asked for: ratings need no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "judges": ["Judge", "by_endpoint", "by_model", "by_reference", "play"],
        "ratings": ["bootstrap", "bradley_terry", "elo"],
        "verdicts": ["OUTCOMES", "Match", "Tournament", "both_orders", "published"],
        "vote": ["Ballot", "panel"],
    },
)
