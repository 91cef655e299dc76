"""Pure mathematics; knows no token and no key."""

from watermark.stats.multiplicity import holm
from watermark.stats.nulls import gamma_log_sf

__all__ = ["gamma_log_sf", "holm"]
