"""The upper tail of a weighted sum of independent Exp(1) scores, in log space.

For scores that are weighted by what is known without the key, such as the entropy of a context.
Two ways, each exact but for rounding and a bound stated where it is taken:

- few scores: the sum is the time at which a chain of exponential stages ends. With the slowest
  decay taken out, the chain's generator has no negative entry, so its exponential is a sum and a
  product of positive numbers, and every entry keeps its digits.
- many scores: the tail is an integral of the generating function along a vertical line. Taken
  through the saddle point the integrand neither grows nor cancels, and the trapezoid rule errs
  only by aliases, which are tails themselves and are bounded below `_NEGLIGIBLE`.

Source: Jensen 1954 and Daniels 1954 for the saddle point; Abate and Whitt, Queueing Systems 10
(1992), for the trapezoid rule and its aliases; Neuts 1981 for phase-type laws.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.errors import SchemeParameterError
from watermark.stats.nulls import gamma_log_sf

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW: Final = 24
_NEGLIGIBLE: Final = 34.0  # aliases and the cut end stay below e^-34, 2e-15, of the tail
_BLOCK: Final = 1 << 11
_MAX_NODES: Final = 1 << 22
_BISECTIONS: Final = 200
_TERMS: Final = 24  # of an exponential series with argument at most 1: the rest is below 1e-23


def weighted_exponentials_log_sf(statistic: float, weights: NDArray[np.float64]) -> float:
    """Return log P(sum of w_i E_i >= statistic) for independent E_i ~ Exp(1), in nats.

    Args:
        statistic: The observed sum, >= 0.
        weights: Shape (n,), finite and >= 0; those that are 0 count for nothing. The fewer
            different weights there are, the faster.

    Returns:
        A number <= 0. With all weights 0 the sum is 0: 0 at a statistic of 0, else -inf.

    Raises:
        SchemeParameterError: An argument is out of range.
    """
    if not 0 <= statistic < math.inf or not (np.isfinite(weights) & (weights >= 0)).all():
        raise SchemeParameterError("a weighted sum needs a statistic and weights >= 0, finite")
    used = weights[weights > 0]
    if statistic == 0:
        return 0.0
    if len(used) == 0:
        return -math.inf
    largest = float(used.max())
    values, counts = np.unique(used / largest, return_counts=True)
    t = statistic / largest
    if len(values) == 1:
        return gamma_log_sf(t, len(used))
    if len(used) <= _FEW:
        return min(0.0, _few_log_sf(t, np.repeat(values, counts)))
    return min(0.0, _many_log_sf(t, values, counts.astype(np.float64)))


def _few_log_sf(t: float, weights: NDArray[np.float64]) -> float:
    """Return the log tail by the exponential of a chain of stages; the largest weight is 1."""
    rates = 1.0 / weights
    doublings = max(0, math.ceil(math.log2(t * float(rates.max()))) + 1)
    step = t / 2.0**doublings
    # Rows of the chain: in stage i stay (fastest - own rate), move on (own rate); both >= 0.
    stages = (np.diag(rates.max() - rates) + np.diag(rates[:-1], 1)) * step
    power = term = np.eye(len(rates))
    for k in range(1, _TERMS):
        term = term @ stages / k
        power = power + term
    log_scale = -float(rates.max()) * step
    for _ in range(doublings):
        power = power @ power
        largest = float(power.max())
        power = power / largest
        log_scale = 2.0 * log_scale + math.log(largest)
    return log_scale + math.log(float(power[0].sum()))


def _many_log_sf(t: float, values: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Return the log tail by the trapezoid rule on the line through the saddle point.

    The rule with step 2 pi / D gives the sum over m of e^(c m D) P(S >= t + m D). The terms of
    m < 0 are below e^(-c |m| D), those of m > 0 below e^(K(s) - s t - (s - c) m D) for every s
    between c and 1; D is chosen so that both fall below e^-34 of the tail, which is itself at
    least about e^(K(c) - c t) / (c sd sqrt(2 pi) + 1).
    """
    c = _saddle(t, values, counts)
    log_peak = _cumulant(c, values, counts) - c * t
    spread = math.sqrt(float((counts * (values / (1.0 - c * values)) ** 2).sum()))
    reach = _NEGLIGIBLE + math.log1p(c * spread * 3.0)
    s = (1.0 + c) / 2.0
    above = _cumulant(s, values, counts) - s * t - log_peak
    period = max((reach - log_peak) / c, (reach + max(above, 0.0)) / (s - c))
    step = 2.0 * math.pi / period
    return log_peak + math.log(_integral(c, t, step, values, counts) * step / math.pi)


def _saddle(t: float, values: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Return c in (0, 1): where the tilted mean is t, or near 0 where t is below the mean.

    Where the saddle point of e^(K - c t) / c is wanted, 1/c is added to the mean: it keeps the
    point off the pole at 0, for statistics on either side of the mean.
    """
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        c = (low + high) / 2.0
        slope = float((counts * values / (1.0 - c * values)).sum()) - t - 1.0 / c
        low, high = (c, high) if slope < 0 else (low, c)
        if high - low < 1e-12 * low:
            break
    return low


def _cumulant(s: float, values: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    return -float((counts * np.log1p(-s * values)).sum())


def _integral(
    c: float, t: float, step: float, values: NDArray[np.float64], counts: NDArray[np.float64]
) -> float:
    """Return the sum over nodes y = 0 (half), step, 2 step, ... of the scaled integrand.

    It ends where the modulus, which falls in y, is negligible beside the sum.
    """
    tilted = values / (1.0 - c * values)
    total = 0.5 / c
    for first in range(1, _MAX_NODES, _BLOCK):
        y = step * np.arange(first, first + _BLOCK)
        z = np.zeros(_BLOCK, np.complex128)
        for value, count in zip(tilted, counts, strict=True):
            z -= count * np.log(1.0 - 1j * value * y)
        terms = np.exp(z - 1j * (y * t)) / (c + 1j * y)
        total += float(terms.real.sum())
        if abs(terms[-1]) * first < math.exp(-_NEGLIGIBLE) * total:
            return total
    raise SchemeParameterError(
        "the weights differ too much for their sum's tail; use fewer levels, or decoy keys"
    )
