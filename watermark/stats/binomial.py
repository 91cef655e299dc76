"""The upper tail of the binomial law, in log space: for schemes that count, and for calibration.

Rule 1: the tail itself, never a mid-p, which is no p-value (true size up to 1.3 times alpha).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy import special

from watermark.errors import SchemeParameterError
from watermark.stats.nulls import stirling_remainder

_DIRECT: Final = 1e-280  # below this, betainc nears the underflow of float64
_NEGLIGIBLE: Final = 1e-18
_BLOCK: Final = 1 << 12


def binomial_log_sf(count: int, n: int, probability: float) -> float:
    """Return log P(X >= count) for X ~ Binomial(n, probability), in nats.

    Args:
        count: Successes observed, 0..n.
        n: Trials, >= 0.
        probability: Chance of a success, in (0, 1).

    Returns:
        A number <= 0; 0 where the count is 0. There is no floor.

    Raises:
        SchemeParameterError: An argument is out of range.

    Source: NIST DLMF 8.17.5; the terms by Loader 2000, "Fast and accurate computation of binomial
    probabilities".
    """
    if not 0 <= count <= n or not 0.0 < probability < 1.0:
        raise SchemeParameterError(
            f"no binomial tail at {count} of {n} with chance {probability}; give 0 <= count <= n"
        )
    if count == 0:
        return 0.0
    tail = float(special.betainc(count, n - count + 1, probability))
    if tail > 0.5:  # noqa: PLR2004 - log1p keeps the digits near 1
        return math.log1p(-float(special.betainc(n - count + 1, count, 1.0 - probability)))
    if tail > _DIRECT:
        return math.log(tail)
    return _log_mass(count, n, probability) + math.log(_relative_tail(count, n, probability))


def _relative_tail(count: int, n: int, probability: float) -> float:
    """Return P(X >= count) / P(X = count), for a count above the mean.

    The ratio of neighboring masses falls, so the terms fall at least geometrically and a sum cut
    where a term is negligible is exact but for rounding.
    """
    odds = probability / (1.0 - probability)
    total, term = 1.0, 1.0
    for first in range(count, n, _BLOCK):
        k = np.arange(first, min(first + _BLOCK, n), dtype=np.float64)
        terms = term * np.cumprod((n - k) / (k + 1.0) * odds)
        total += float(terms.sum())
        term = float(terms[-1])
        if term < _NEGLIGIBLE * total:
            break
    return total


def _log_mass(count: int, n: int, probability: float) -> float:
    """Return log P(X = count), without the cancellation of log-factorials."""
    if count == n:
        return n * math.log(probability)
    rest = n - count
    return (
        0.5 * math.log(n / (2.0 * math.pi * count * rest))
        + _log_factorial_remainder(n)
        - _log_factorial_remainder(count)
        - _log_factorial_remainder(rest)
        - _deviance(count, n * probability)
        - _deviance(rest, n * (1.0 - probability))
    )


def _log_factorial_remainder(n: int) -> float:
    """Return log n! - ((n + 1/2) log n - n + log(2 pi) / 2)."""
    if n < 32:  # noqa: PLR2004 - below this the series has too few digits
        return math.lgamma(n + 1.0) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2.0 * math.pi)
    return stirling_remainder(float(n))


def _deviance(observed: float, expected: float) -> float:
    """Return x log(x / m) + m - x, with its digits where x is near m."""
    excess = (expected - observed) / observed
    return observed * (excess - math.log1p(excess))
