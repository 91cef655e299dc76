"""The upper tail of a sum of independent draws from finite laws of integers, in log space.

The laws are tilted by one factor e^(tilt x), so that the mean of the sum sits at the statistic; the
tilted law of the sum is a product of powers of discrete Fourier transforms; and the tilt is taken
back term by term, so that far tails keep their digits. A transform need not be as long as the sum
can get: outside a window around its mean Chernoff's bound leaves it less than `_NEGLIGIBLE`, which
is all that wraps around.

Source: Esscher 1932 (tilting); Chernoff, Ann. Math. Stat. 23 (1952).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import fft, special

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_STEPS: Final = 200
_NEAR: Final = 0.01  # standard deviations that the tilted mean may be off
_STEEPEST: Final = 700.0  # e^-700: a neighbor of the largest value has no mass left
_NEGLIGIBLE: Final = 45.0  # e^-45: of the tilted law, which is about as large as its tail
_SLOPES: Final = np.array([1.0, 3.0, 9.0])  # at which Chernoff's bound is tried, in 1 / deviations


@dataclass(frozen=True, slots=True)
class LatticeLaw:
    """Several draws from one law of integers.

    Attributes:
        low: The smallest value.
        log_masses: Natural log of the mass of low, low + 1, ..., shape (m,); together 1.
        n_draws: How many draws, >= 1.
    """

    low: int
    log_masses: NDArray[np.float64]
    n_draws: int


def integer_sum_log_sf(statistic: int, counts: NDArray[np.int64], n_draws: int) -> float:
    """Return log P(X_1 + ... + X_n >= statistic), in nats.

    The X_i are independent, and P(X = x) = counts[x] / sum(counts). Exact but for rounding.

    Args:
        statistic: The observed sum.
        counts: Shape (m,), how often each of 0..m - 1 occurs; >= 0, not all 0.
        n_draws: Number of draws, >= 1.

    Returns:
        A number <= 0, or -inf where no sum is as large.

    Raises:
        SchemeParameterError: There is nothing to draw, or no draw.
    """
    total = int(counts.sum())
    if total <= 0 or n_draws < 1:
        raise SchemeParameterError(f"no sum of {n_draws} draws from {total} values")
    values = np.flatnonzero(counts)
    low, high = int(values[0]), int(values[-1])
    masses = np.log(
        counts[low : high + 1],
        out=np.full(high - low + 1, -np.inf),
        where=counts[low : high + 1] > 0,
    )
    return lattice_sum_log_sf(statistic, [LatticeLaw(low, masses - math.log(total), n_draws)])


def lattice_sum_log_sf(statistic: int, laws: Sequence[LatticeLaw]) -> float:
    """Return log P(sum of all draws >= statistic), in nats. Exact but for rounding.

    Args:
        statistic: The observed sum.
        laws: The laws of the draws, all independent.

    Returns:
        A number <= 0, or -inf where no sum is as large.
    """
    excess = statistic - sum(law.n_draws * law.low for law in laws)
    if excess <= 0:
        return 0.0
    if excess > sum(law.n_draws * (len(law.log_masses) - 1) for law in laws):
        return -math.inf
    return min(0.0, _Tilted.to(excess, laws).log_tail(excess))


@dataclass(frozen=True, slots=True)
class _Tilted:
    """A sum of draws under tilted laws, counted from its smallest value.

    Attributes:
        laws: The laws, before the tilt.
        tilt: The tilt, >= 0.
        log_norm: Log of the mean of e^(tilt sum).
    """

    laws: Sequence[LatticeLaw]
    tilt: float
    log_norm: float

    @classmethod
    def to(cls, excess: int, laws: Sequence[LatticeLaw]) -> _Tilted:
        """Return a tilt >= 0 that brings the mean near the excess; 0 where it is beyond.

        Every tilt gives the same tail. It is Newton's, kept between the bounds that are known.
        """
        low, high, tilt = 0.0, _STEEPEST, 0.0
        for _ in range(_STEPS):
            mean, variance = _moments(laws, tilt)
            away = excess - mean
            low, high = (tilt, high) if away > 0 else (low, tilt)
            if abs(away) <= _NEAR * math.sqrt(variance) or high - low < 1e-9 * (1 + high):
                break
            newton = tilt + away / variance if variance > 0 else high
            tilt = newton if low < newton < high else (low + high) / 2
        return cls(laws, tilt, _log_norm(laws, tilt))

    def log_tail(self, excess: int) -> float:
        """Return the log of the tail of the sum before the tilt."""
        first, last = self._window()
        if excess < first:
            return 0.0  # all but what is negligible lies above
        sums = self._masses(last - first + 1)
        at = np.arange(excess, last + 1)
        tail = np.maximum(sums[at % len(sums)], 0.0)
        back = np.exp(-self.tilt * (at - excess))
        return self.log_norm - self.tilt * excess + math.log(float(tail @ back))

    def _window(self) -> tuple[int, int]:
        """Return values around the mean outside of which less than `_NEGLIGIBLE` lies."""
        mean, variance = _moments(self.laws, self.tilt)
        slopes = _SLOPES / max(math.sqrt(variance), 1e-3)
        up, down = (
            min((_NEGLIGIBLE + self._cumulant(sign * slope, mean)) / slope for slope in slopes)
            for sign in (1, -1)
        )
        most = sum(law.n_draws * (len(law.log_masses) - 1) for law in self.laws)
        return max(0, math.floor(mean - down)), min(most, math.ceil(mean + up))

    def _cumulant(self, slope: float, mean: float) -> float:
        """Return log of the mean of e^(slope (sum - mean)), tilted."""
        return _log_norm(self.laws, self.tilt + slope) - self.log_norm - slope * mean

    def _masses(self, size: int) -> NDArray[np.float64]:
        """Return the tilted masses of the sum, wrapped around a circle of `size` or more."""
        size = int(fft.next_fast_len(size, real=True))
        product = np.ones(size // 2 + 1, np.complex128)
        for law in self.laws:
            logs = law.log_masses + self.tilt * np.arange(len(law.log_masses))
            masses = np.exp(logs - special.logsumexp(logs))
            wrapped = np.pad(masses, (0, -len(masses) % size)).reshape(-1, size).sum(axis=0)
            product *= fft.rfft(wrapped) ** law.n_draws
        found: NDArray[np.float64] = fft.irfft(product, size)
        return found


def _log_norm(laws: Sequence[LatticeLaw], tilt: float) -> float:
    """Return log of the mean of e^(tilt sum)."""
    return sum(
        law.n_draws
        * float(special.logsumexp(law.log_masses + tilt * np.arange(len(law.log_masses))))
        for law in laws
    )


def _moments(laws: Sequence[LatticeLaw], tilt: float) -> tuple[float, float]:
    """Return mean and variance of the tilted sum, from its smallest value."""
    mean = variance = 0.0
    for law in laws:
        steps = np.arange(len(law.log_masses))
        logs = law.log_masses + tilt * steps
        masses = np.exp(logs - special.logsumexp(logs))
        center = float(masses @ steps)
        mean += law.n_draws * center
        variance += law.n_draws * float(masses @ (steps - center) ** 2)
    return mean, variance
