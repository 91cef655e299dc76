"""Pure mathematics; knows no token and no key."""

from watermark.stats.discoveries import discoveries
from watermark.stats.multiplicity import holm
from watermark.stats.nulls import gamma_log_sf
from watermark.stats.rotation import RotationPrice, rotation_price, tokens_needed

__all__ = [
    "RotationPrice",
    "discoveries",
    "gamma_log_sf",
    "holm",
    "rotation_price",
    "tokens_needed",
]
