"""The upper tail of a weighted sum of two Gamma variables of one shape, in log space.

A scheme that scores each position under two keys at once and adds the scores with unequal
weights has this law, not a Gamma law; fitting one by its moments understates p in the tail, by
1.3 to 2.4 times at the usual lengths and levels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from watermark.errors import SchemeParameterError
from watermark.stats.nulls import gamma_log_sf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_NEGLIGIBLE: Final = 40.0  # terms below e^-40 of the largest: together below 1e-15 of the sum


def weighted_gammas_log_sf(statistic: float, shape: int, weights: tuple[float, float]) -> float:
    """Return log P(w A + v B >= statistic) for independent A, B ~ Gamma(shape, 1), in nats.

    An exponential time of mean w is the sum of a geometric number of exponential times of the
    smaller mean v, so w A + v B is v times a Gamma(2 shape + K, 1) with K negative binomial
    (shape successes of chance v / w). The tail is a sum of positive terms, log-concave in k, which
    is taken from its largest term outwards: nothing cancels, and nothing underflows.

    Args:
        statistic: The observed weighted sum, >= 0.
        shape: Number of scores under each key, >= 0.
        weights: Two weights >= 0, not both 0.

    Returns:
        A number <= 0; exact but for rounding.

    Raises:
        SchemeParameterError: An argument is out of range.

    Source: sums of exponential variables of several rates: Feller, vol. II, I.13; the mixture:
    Moschopoulos, Ann. Inst. Statist. Math. 37 (1985).
    """
    large, small = max(weights), min(weights)
    if small < 0 or not 0 < large < math.inf:
        raise SchemeParameterError(f"no weighted sum with weights {weights}")
    if small == 0.0:
        return gamma_log_sf(statistic / large, shape)
    if small == large:
        return gamma_log_sf(statistic / large, 2 * shape)
    if shape == 0 or statistic <= 0:
        return gamma_log_sf(statistic, shape)
    return min(0.0, _log_mixture(statistic / small, shape, small / large))


def _log_mixture(x: float, shape: int, chance: float) -> float:
    """Return log of the sum over k of P(K = k) P(Gamma(2 shape + k, 1) >= x)."""

    def term(k: int) -> float:
        return float(_log_negative_binomial(np.array([k]), shape, chance)[0]) + gamma_log_sf(
            x, 2 * shape + k
        )

    reach = int(shape / chance + x) + 64  # beyond both means, the terms only fall
    peak = _peak(term, reach)
    floor = term(peak) - _NEGLIGIBLE
    first = _edge(lambda k: term(k) < floor, peak, 0)
    last = _edge(lambda k: term(k) < floor, peak, None)
    k = np.arange(first, last + 1)
    logs = _log_negative_binomial(k, shape, chance) + _log_tails(x, 2 * shape + first, len(k))
    return float(special.logsumexp(logs))


def _log_negative_binomial(k: NDArray[np.int64], shape: int, chance: float) -> NDArray[np.float64]:
    """Return log P(K = k), K the failures before `shape` successes of chance `chance`."""
    logs: NDArray[np.float64] = (
        shape * math.log(chance)
        + k * math.log1p(-chance)
        - special.betaln(shape, k + 1.0)
        - np.log(shape + k)
    )
    return logs


def _log_tails(x: float, first: int, count: int) -> NDArray[np.float64]:
    """Return log P(Gamma(m, 1) >= x) for m = first, first + 1, ..., by adding Poisson terms."""
    m = np.arange(first, first + count - 1)
    steps = np.empty(count)
    steps[0] = gamma_log_sf(x, first)
    steps[1:] = m * math.log(x) - x - special.gammaln(m + 1.0)
    return np.minimum(np.logaddexp.accumulate(steps), 0.0)


def _peak(term: Callable[[int], float], high: int) -> int:
    """Return where a log-concave function of 0..high is largest."""
    low = 0
    while high - low > 2:  # noqa: PLR2004 - three points are left
        middle = (low + high) // 2
        if term(middle) < term(middle + 1):
            low = middle + 1
        else:
            high = middle
    return max(range(low, high + 1), key=term)


def _edge(is_beyond: Callable[[int], bool], inside: int, end: int | None) -> int:
    """Return a point from which on all is beyond, above `inside` or, with an end, below it."""
    step = 1 if end is None else -1
    width = 1
    while end is None or inside - width > end:
        if is_beyond(inside + step * width):
            break
        width *= 2
    else:
        return end
    return inside + step * width  # at most twice as far as need be
