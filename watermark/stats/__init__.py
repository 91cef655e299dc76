"""Pure mathematics; knows no token and no key."""

from watermark.stats.multiplicity import holm
from watermark.stats.nulls import gamma_log_sf
from watermark.stats.rademacher import rademacher_log_sf
from watermark.stats.rotation import RotationPrice, rotation_price, tokens_needed

__all__ = [
    "RotationPrice",
    "gamma_log_sf",
    "holm",
    "rademacher_log_sf",
    "rotation_price",
    "tokens_needed",
]
