"""The upper tail of a sum of independent draws from one finite law of integers, in log space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import fft, special

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS: Final = 200
_STEEPEST: Final = 700.0  # e^-700: a neighbor of the largest value has no mass left


def integer_sum_log_sf(statistic: int, counts: NDArray[np.int64], n_draws: int) -> float:
    """Return log P(X_1 + ... + X_n >= statistic), in nats.

    The X_i are independent, and P(X = x) = counts[x] / sum(counts). Exact but for rounding: the
    law is tilted so that its mean sits at the statistic, the sum's tilted law is one power of a
    discrete Fourier transform, and the tilt is taken back term by term, so that far tails keep
    their digits.

    Args:
        statistic: The observed sum.
        counts: Shape (m,), how often each of 0..m - 1 occurs; >= 0, not all 0.
        n_draws: Number of draws, >= 1.

    Returns:
        A number <= 0, or -inf where no sum is as large.

    Raises:
        SchemeParameterError: There is nothing to draw, or no draw.

    Source: Esscher 1932 (tilting).
    """
    total = int(counts.sum())
    if total <= 0 or n_draws < 1:
        raise SchemeParameterError(f"no sum of {n_draws} draws from {total} values")
    values = np.flatnonzero(counts)
    low, high = int(values[0]), int(values[-1])
    excess = statistic - n_draws * low
    if excess <= 0:
        return 0.0
    if statistic > n_draws * high:
        return -math.inf
    masses = np.log(
        counts[low : high + 1],
        out=np.full(high - low + 1, -np.inf),
        where=counts[low : high + 1] > 0,
    )
    masses -= math.log(total)
    return min(0.0, _tilted_tail(excess, masses, n_draws))


def _tilted_tail(excess: int, log_masses: NDArray[np.float64], n_draws: int) -> float:
    """Return the log tail of a sum of draws from 0..len - 1."""
    steps = np.arange(len(log_masses))
    tilt = _tilt(excess / n_draws, log_masses, steps)
    tilted = log_masses + tilt * steps
    log_norm = float(special.logsumexp(tilted))
    size = n_draws * (len(steps) - 1) + 1
    spectrum = fft.rfft(np.exp(tilted - log_norm), fft.next_fast_len(size, real=True))
    sums = fft.irfft(spectrum**n_draws, fft.next_fast_len(size, real=True))[:size]
    tail = np.maximum(sums[excess:], 0.0)
    back = np.exp(-tilt * np.arange(len(tail)))
    return n_draws * log_norm - tilt * excess + math.log(float(tail @ back))


def _tilt(mean: float, log_masses: NDArray[np.float64], steps: NDArray[np.int64]) -> float:
    """Return the tilt >= 0 that brings the mean up to `mean`; 0 where it is there."""
    low, high = 0.0, _STEEPEST
    if _tilted_mean(0.0, log_masses, steps) >= mean:
        return 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _tilted_mean(middle, log_masses, steps) < mean:
            low = middle
        else:
            high = middle
        if high - low < 1e-9 * (1 + high):
            break
    return low


def _tilted_mean(tilt: float, log_masses: NDArray[np.float64], steps: NDArray[np.int64]) -> float:
    """Return the mean of the law times e^(tilt x)."""
    logs = log_masses + tilt * steps
    return float(np.exp(logs - special.logsumexp(logs)) @ steps)
