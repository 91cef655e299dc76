"""What `result.json` shows of a body of evidence.

Numbers are rounded to nine digits, so that machines whose logarithms differ in the last one agree.
Rule 1: while a key is secret no figure tells the score of a single pair: the path of the bet has
at most `STEPS` points, each after many scores.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.stats import LN_10

if TYPE_CHECKING:
    from watermark.radioactivity import Dose, Evidence, KeyEvidence

STEPS: Final = 60
LEAST_SCORES: Final = 64
"""Scores between two points of the path, at least."""
_BINS: Final = 40
_DIGITS: Final = 9


def evidence_fields(one: Evidence) -> dict[str, Any]:
    """Return the figures of one body of evidence."""
    return {
        "n_answers": one.n_answers,
        "n_units": one.n_units,
        "n_scored": one.n_scored,
        "statistic": rounded(one.statistic),
        "effect": rounded(one.effect),
        "log10_evalue": rounded(one.log_evalue / LN_10),
        "log10_evalue_peak": rounded(one.log_evalue_peak / LN_10),
        "peak_after": one.peak_after,
        "log10_pvalue_fixed_n": rounded(one.log_pvalue / LN_10),
        "decoys": {
            "n": one.decoys.n_decoys,
            "n_reached": one.decoys.n_reached,
            "log10_pvalue": rounded(one.decoys.log_pvalue / LN_10),
            "histogram": _histogram(one),
        },
        "dose": _dose_fields(one.dose),
        "path": _path(one),
        "keys": [_key_fields(key) for key in one.keys],
    }


def rounded(value: float) -> float | None:
    """Return nine digits; None for what is not finite, which JSON cannot say."""
    return float(f"{value:.{_DIGITS}g}") + 0.0 if math.isfinite(value) else None


def _key_fields(key: KeyEvidence) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "n_scored": key.n_scored,
        "log10_pvalue": rounded(key.log_pvalue / LN_10),
        "log10_pvalue_family": rounded(key.log_pvalue_family / LN_10),
        "effect": rounded(key.effect),
    }


def _dose_fields(dose: Dose) -> dict[str, Any]:
    named = {"estimate": dose.estimate, "low": dose.low, "high": dose.high}
    return {name: rounded(value) for name, value in named.items()}


def _path(one: Evidence) -> list[dict[str, Any]]:
    """Return some points of the bet (rule 1)."""
    if not one.path:
        return []
    step = max(LEAST_SCORES, one.path[-1][0] // STEPS)
    found: list[dict[str, Any]] = []
    last = 0
    so_far = accumulate(one.answer_units)
    for n_units, (n_scored, log_evalue) in zip(so_far, one.path, strict=True):
        if n_scored - last >= step:
            value = rounded(log_evalue / LN_10)
            found.append({"n_units": n_units, "n_scored": n_scored, "log10_evalue": value})
            last = n_scored
    return found


def _histogram(one: Evidence) -> dict[str, Any]:
    """Return how the statistic falls under decoys, in its standard deviations."""
    spread = one.statistic / (one.effect * math.sqrt(one.n_scored)) if one.effect else 1.0
    z = np.array(one.decoy_statistics) / spread
    edge = max(4.0, float(np.ceil(np.abs(z).max(initial=0.0))))
    counts, _ = np.histogram(z, _BINS, (-edge, edge))
    own = one.statistic / spread
    return {"edge": edge, "counts": counts.tolist(), "own": rounded(own)}
