"""Pure mathematics; knows no token and no key."""

from watermark.stats.binomial import binomial_log_sf
from watermark.stats.decoys import (
    KEY_PAIRS,
    affordable_decoys,
    decoy_log_pvalue,
    decoys_for,
    decoys_reached,
    smallest_log_pvalue,
)
from watermark.stats.diluted import DilutedSum, diluted_log_growth, share_of
from watermark.stats.discoveries import discoveries
from watermark.stats.evalues import BettingEvalue
from watermark.stats.hypoexponential import weighted_gammas_log_sf
from watermark.stats.keywise import keywise_log_evalue, keywise_rate
from watermark.stats.lattice import integer_sum_log_sf
from watermark.stats.logs import LN_10
from watermark.stats.multiplicity import holm
from watermark.stats.nulls import gamma_log_sf, gamma_log_sfs
from watermark.stats.rademacher import rademacher_log_sf
from watermark.stats.rotation import RotationPrice, rotation_price, tokens_needed
from watermark.stats.weighted_exponentials import weighted_exponentials_log_sf

__all__ = [
    "KEY_PAIRS",
    "LN_10",
    "BettingEvalue",
    "DilutedSum",
    "RotationPrice",
    "affordable_decoys",
    "binomial_log_sf",
    "decoy_log_pvalue",
    "decoys_for",
    "decoys_reached",
    "diluted_log_growth",
    "discoveries",
    "gamma_log_sf",
    "gamma_log_sfs",
    "holm",
    "integer_sum_log_sf",
    "keywise_log_evalue",
    "keywise_rate",
    "rademacher_log_sf",
    "rotation_price",
    "share_of",
    "smallest_log_pvalue",
    "tokens_needed",
    "weighted_exponentials_log_sf",
    "weighted_gammas_log_sf",
]
