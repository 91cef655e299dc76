"""Pure mathematics; knows no token and no key."""

from watermark.stats.hypoexponential import weighted_gammas_log_sf
from watermark.stats.lattice import integer_sum_log_sf
from watermark.stats.multiplicity import holm
from watermark.stats.nulls import gamma_log_sf
from watermark.stats.rademacher import rademacher_log_sf
from watermark.stats.rotation import RotationPrice, rotation_price, tokens_needed

__all__ = [
    "RotationPrice",
    "gamma_log_sf",
    "holm",
    "integer_sum_log_sf",
    "rademacher_log_sf",
    "rotation_price",
    "tokens_needed",
    "weighted_gammas_log_sf",
]
