"""What `result.json` shows of a body of evidence.

Numbers are rounded to nine digits, so that machines whose logarithms differ in the last one agree.

Rule 1: while a key is secret no figure, and no difference of two, tells a sum over fewer than
`FEWEST_SHOWN` pairs. So the path of the bet has few points, each that far from the last, the end
among them; its largest value is the largest of those, or the level that was passed between two;
and what rests on fewer pairs is withheld. Rule 2: what is withheld changes no decision.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.detection.result import FEWEST_SHOWN
from watermark.stats import LN_10

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.radioactivity import Dose, Evidence, KeyEvidence

STEPS: Final = 60
LEAST_SCORES: Final = 64
"""Scores between two points of the path, at least."""
_BINS: Final = 40
_DIGITS: Final = 9


def evidence_fields(
    one: Evidence, *, alpha: float, within: Evidence | None = None, n_apart: int = 0
) -> dict[str, Any]:
    """Return the figures of one body of evidence, or its numbers alone where it is too small.

    Args:
        one: The evidence.
        alpha: Level of the audit.
        within: Evidence that is shown too and holds all pairs of this one, so that the difference
            of the two is known; None where there is none.
        n_apart: Pairs that this one, or another that is shown, has and not both; 0 where there is
            no other, or the two are equal.
    """
    numbers = {"n_answers": one.n_answers, "n_units": one.n_units, "n_scored": one.n_scored}
    is_near = 0 < n_apart < FEWEST_SHOWN or (within is not None and _is_close(one, within))
    if is_withheld(one) or is_near:
        return numbers | {"is_withheld": True}
    path = _path(one)
    peak = _peak(one, path, alpha)
    return numbers | {
        "is_withheld": False,
        "statistic": rounded(one.statistic),
        "effect": rounded(one.effect),
        "log10_evalue": rounded(one.log_evalue / LN_10),
        "log10_evalue_peak": peak["log10_evalue"],
        "peak_after": peak["n_answers"],
        "log10_pvalue_fixed_n": rounded(one.log_pvalue / LN_10),
        "decoys": _decoy_fields(one),
        "dose": _dose_fields(one.dose),
        "path": path,
        "keys": _key_fields(one.keys),
    }


def is_withheld(one: Evidence) -> bool:
    """Return whether evidence rests on too few pairs to be shown (rule 1)."""
    return 0 < one.n_scored < _fewest(one)


def rounded(value: float) -> float | None:
    """Return nine digits; None for what is not finite, which JSON cannot say."""
    return float(f"{value:.{_DIGITS}g}") + 0.0 if math.isfinite(value) else None


def _fewest(one: Evidence) -> int:
    """Return how many scores, over all keys, `FEWEST_SHOWN` pairs have at most."""
    return FEWEST_SHOWN * len(one.keys)


def _is_close(one: Evidence, whole: Evidence) -> bool:
    return 0 < whole.n_scored - one.n_scored < _fewest(one)


def _key_fields(keys: Sequence[KeyEvidence]) -> list[dict[str, Any]]:
    """Return each key alone; of none, where one has too few pairs, which the others would tell."""
    if any(0 < key.n_scored < FEWEST_SHOWN for key in keys):
        return [{"key_id": key.key_id, "n_scored": key.n_scored} for key in keys]
    return [
        {
            "key_id": key.key_id,
            "n_scored": key.n_scored,
            "log10_pvalue": rounded(key.log_pvalue / LN_10),
            "log10_pvalue_family": rounded(key.log_pvalue_family / LN_10),
            "effect": rounded(key.effect),
        }
        for key in keys
    ]


def _decoy_fields(one: Evidence) -> dict[str, Any]:
    """Return the rank among decoys, the smallest p they support, and whether they contradict."""
    decoys = one.decoys
    return {
        "n": decoys.n_decoys,
        "n_reached": decoys.n_reached,
        "log10_pvalue": rounded(decoys.log_pvalue / LN_10),
        "log10_pvalue_smallest": rounded(decoys.log_pvalue_floor / LN_10),
        "contradict_closed_form": decoys.contradicts(one.log_pvalue),
        "histogram": _histogram(one),
    }


def _dose_fields(dose: Dose) -> dict[str, Any]:
    named = {"estimate": dose.estimate, "low": dose.low, "high": dose.high}
    return {name: rounded(value) for name, value in named.items()}


def _path(one: Evidence) -> list[dict[str, Any]]:
    """Return some points of the bet, the last one among them (rule 1)."""
    units = list(accumulate(one.answer_units))
    return [
        {
            "n_answers": at + 1,
            "n_units": units[at],
            "n_scored": one.path[at][0],
            "log10_evalue": rounded(one.path[at][1] / LN_10),
        }
        for at in _places(one)
    ]


def _places(one: Evidence) -> list[int]:
    """Return after which answers the bet is shown."""
    total = one.path[-1][0] if one.path else 0
    step = max(LEAST_SCORES, _fewest(one), total // STEPS)
    found: list[int] = []
    shown = 0
    for at, (n_scored, _) in enumerate(one.path):
        if n_scored - shown >= step and total - n_scored >= _fewest(one):
            found.append(at)
            shown = n_scored
    return [*found, len(one.path) - 1] if total else []


def _peak(one: Evidence, path: Sequence[dict[str, Any]], alpha: float) -> dict[str, Any]:
    """Return the largest value of the bet that is shown, or the level that it has passed."""
    start = {"n_answers": 0, "log10_evalue": 0.0}
    found = max([start, *path], key=lambda at: at["log10_evalue"])
    level = -math.log10(alpha)
    if found["log10_evalue"] >= level or not one.rejects_null(alpha=alpha):
        return found
    after = next(at["n_answers"] for at in path if at["n_answers"] >= one.peak_after)
    return {"n_answers": after, "log10_evalue": rounded(level)}


def _histogram(one: Evidence) -> dict[str, Any]:
    """Return how the statistic falls under decoys, in its standard deviations."""
    spread = one.statistic / (one.effect * math.sqrt(one.n_scored)) if one.effect else 1.0
    z = one.decoy_statistics / spread
    edge = max(4.0, float(np.ceil(np.abs(z).max(initial=0.0))))
    counts, _ = np.histogram(z, _BINS, (-edge, edge))
    own = one.statistic / spread
    return {"edge": edge, "counts": counts.tolist(), "own": rounded(own)}
