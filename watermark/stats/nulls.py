"""Upper tails of the null distributions, in log space.

Rule 1: tails are computed as tails; nothing is ever subtracted from one.
Rule 2: no floor: where the tail itself underflows, its logarithm does not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DIRECT: Final = 1e-280  # below this, gammaincc nears the underflow of float64
_TINY: Final = 1e-300
_PRECISION: Final = 1e-15
_MAX_TERMS: Final = 100_000


def gamma_log_sf(statistic: float, shape: int) -> float:
    """Return log P(G >= statistic) for G ~ Gamma(shape, 1), in nats.

    The sum of n independent Exp(1) scores is Gamma(n, 1), so this is the exact log p-value of a
    score sum under the null.

    Args:
        statistic: The observed sum, >= 0.
        shape: Number of scores, >= 0; with none the sum is 0 and the tail is 1.

    Returns:
        A number <= 0; 0 where the statistic is 0.

    Raises:
        SchemeParameterError: The statistic is negative or not finite, or the shape negative.

    Source: NIST DLMF 8.2.4; the far tail by the continued fraction DLMF 8.9.2 (Lentz's method).
    """
    if shape < 0 or not 0 <= statistic < math.inf:
        raise SchemeParameterError(f"no Gamma tail at shape {shape}, statistic {statistic}")
    if shape == 0 or statistic == 0:
        return 0.0
    tail = float(special.gammaincc(shape, statistic))
    if tail > 0.5:  # noqa: PLR2004 - log1p keeps the digits near 1
        return math.log1p(-float(special.gammainc(shape, statistic)))
    if tail > _DIRECT:
        return math.log(tail)
    return _far_tail(float(shape), statistic)


def gamma_log_sfs(
    statistics: NDArray[np.float64], shapes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return `gamma_log_sf` of many sums, shape (k,).

    Args:
        statistics: The sums, shape (k,), >= 0.
        shapes: Number of scores in each, shape (k,), >= 0.

    Raises:
        SchemeParameterError: A statistic is negative or not finite, or a shape negative.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        tails = special.gammaincc(shapes, statistics)
        logs: NDArray[np.float64] = np.log(tails)
        is_near_one = tails > 0.5  # noqa: PLR2004 - log1p keeps the digits near 1
        logs[is_near_one] = np.log1p(
            -special.gammainc(shapes[is_near_one], statistics[is_near_one])
        )
    # What is left is far out, or not a tail at all: the scalar form decides.
    for i in np.flatnonzero(~(tails > _DIRECT) | (statistics <= 0) | (shapes <= 0)):
        logs[i] = gamma_log_sf(float(statistics[i]), int(shapes[i]))
    return logs


def _far_tail(shape: float, statistic: float) -> float:
    """Return the log tail by the continued fraction of Gamma(shape, x), for x well above shape."""
    b = statistic + 1.0 - shape
    c = 1.0 / _TINY
    d = 1.0 / b
    fraction = d
    for i in range(1, _MAX_TERMS):
        numerator = -i * (i - shape)
        b += 2.0
        d = 1.0 / _nonzero(numerator * d + b)
        c = _nonzero(b + numerator / c)
        factor = d * c
        fraction *= factor
        if abs(factor - 1.0) < _PRECISION:
            break
    return _log_density_factor(shape, statistic) + math.log(fraction)


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _log_density_factor(shape: float, statistic: float) -> float:
    """Return log(x^a e^-x / Gamma(a)) without the cancellation of its large terms."""
    excess = (statistic - shape) / shape
    # log(a^a e^-a / Gamma(a)), by the Stirling series for large a
    if shape < 32:  # noqa: PLR2004 - below this the series has too few digits
        base = shape * math.log(shape) - shape - math.lgamma(shape)
    else:
        base = 0.5 * math.log(shape / (2 * math.pi)) - stirling_remainder(shape)
    return base + shape * (math.log1p(excess) - excess)


def stirling_remainder(a: float) -> float:
    """Return log Gamma(a) - ((a - 1/2) log a - a + log(2 pi)/2); NIST DLMF 5.11.1."""
    square = a * a
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * square)) / square) / square) / a
