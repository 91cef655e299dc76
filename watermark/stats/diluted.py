"""Likelihood ratios of scores of which a share is larger: a bet, and a sum with an exact tail.

A student repeats some of what it read and says the rest in its own way: a share e of its scores
comes from marked text, most of them as any others. What marked text itself shows has a heavier
tail than Exp with a larger mean, because what was rarely said is chosen by large scores alone. So
the alternative is a mixture, with a fixed tilt a = .4:

    a score is Exp with mean 1 / (1 - a) with chance e, else Exp(1);
    its likelihood ratio against Exp(1) is 1 + e g(s), g(s) = (1 - a) exp(a s) - 1.

Under the null a score s is Exp(1) given everything before it. Then g has mean 0, so that products
of 1 + e g(s), e fixed before each score is seen, are a non-negative martingale, and so are their
averages over several e (Ville: P(sup E >= 1 / alpha) <= alpha). Against any alternative at all the
logarithm of one of them is a sum of independent terms of known law under the null, and has an
exact tail.

What it gains: where few scores carry the mark, a fifth to a half fewer are needed than by the plain
sum of the scores, and neither the tilt nor the share needs to be right; where all carry it, up to
a third more (`benchmarks/radioactivity/bets.py`, and figure 3 of the laboratory there). A sum of
g itself, without the logarithm, would be spoilt by single large scores.

Scores are discrete, at midpoints of 2^52 cells of u; g is convex in u, so that its mean is below 0,
never above.

Source: Wald 1945; Robbins, Ann. Math. Stat. 41 (1970), for mixtures; Neyman and Pearson 1933.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.errors import SchemeParameterError
from watermark.stats.lattice import LatticeLaw, lattice_sum_log_sf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TILT: Final = 0.4
SMALLEST_SHARE: Final = 1e-3
"""Below, a law has too many steps, and so many scores would be needed that nobody asks."""
_CELLS: Final = 2.0**52
_LARGEST: Final = 53 * math.log(2.0)  # of the last cell's midpoint
_STEPS_A_SHARE: Final = 64
_CENTER_UNIT: Final = 2.0**-26  # so that sums of 2^20 terms are exact in any order


def share_of(effect: float) -> float:
    """Return the share of larger scores whose mean excess is an effect, `SMALLEST_SHARE` to 1.

    Args:
        effect: Mean excess of a score, in standard deviations, > 0.
    """
    return min(1.0, max(SMALLEST_SHARE, effect * (1.0 - TILT) / TILT))


def diluted_log_growth(
    shares: Sequence[float], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how much the logarithm of each bet grows with some scores, shape (k,).

    Args:
        shares: Supposed shares of larger scores, each in [0, 1], shape (k,).
        scores: In nats, >= 0, shape (n,).
        weights: Multiples of the shares, in [0, 1], fixed before their scores, shape (n,).

    Raises:
        SchemeParameterError: A share, a score or a weight is out of range.
    """
    supposed = np.asarray(shares, np.float64)
    _check(supposed, scores, weights)
    growth: NDArray[np.float64] = np.log1p(
        np.multiply.outer(supposed, weights) * _gain(scores)
    ).sum(axis=1)
    return growth


class DilutedSum:
    """The logarithm of one bet as a test statistic, with an exact law at a fixed number of scores.

    Each term is rounded down to a step of a lattice (a power of 2, 1/64 to 1/128 of the share),
    less its mean under the null. So sums are exact in any order, and their law is a finite one.
    """

    __slots__ = ("share", "step")

    def __init__(self, share: float) -> None:
        """Fix the share.

        Args:
            share: Supposed share of larger scores at weight 1, `SMALLEST_SHARE` to 1.

        Raises:
            SchemeParameterError: It is not.
        """
        if not SMALLEST_SHARE <= share <= 1.0:
            raise SchemeParameterError(f"a share lies in {SMALLEST_SHARE:g}..1, found {share}")
        self.share = share
        self.step = 2.0 ** math.floor(math.log2(share / _STEPS_A_SHARE))

    def __repr__(self) -> str:
        """Show the share."""
        return f"DilutedSum({self.share:g})"

    def terms(
        self, scores: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return what scores add to the statistic, in nats; in the mean 0 under the null.

        As `terms_about`, with the centers of the weights.

        Args:
            scores: In nats, > 0, shape (..., n).
            weights: Multiples of the share, in (0, 1], fixed before their scores, shape (n,).

        Raises:
            SchemeParameterError: A score or a weight is out of range.
        """
        return self.terms_about(scores, weights, self.centers(weights))

    def centers(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of a rounded term at each weight, in nats, shape (n,)."""
        levels, places = np.unique(weights, return_inverse=True)
        found: NDArray[np.float64] = np.array(
            [self._center(one) for one in levels.tolist()] or [0.0]
        )[places]
        return found

    def terms_about(
        self,
        scores: NDArray[np.float64],
        weights: NDArray[np.float64],
        centers: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the terms where the centers are known: many keys share their pairs' weights.

        Args:
            scores: As `terms` has it.
            weights: Likewise.
            centers: Of the weights, shape (n,).

        Raises:
            SchemeParameterError: A score or a weight is out of range.
        """
        _check(np.array(self.share), scores, weights)
        found: NDArray[np.float64] = np.log1p(self.share * weights * _gain(scores))
        np.floor(np.divide(found, self.step, out=found), out=found)
        found *= self.step
        found -= centers
        return found

    def log_sf(self, statistic: float, weights: NDArray[np.float64]) -> float:
        """Return log P(sum of the terms >= statistic) for independent Exp(1) scores, in nats.

        Args:
            statistic: A sum of terms.
            weights: Theirs, shape (n,).

        Returns:
            A number <= 0; exact but for rounding; 0 without scores.
        """
        levels = _counted(weights)
        laws = [LatticeLaw(*_law(self.share * level, self.step), n) for level, n in levels]
        centers = sum(self._center(level) * n for level, n in levels)
        return lattice_sum_log_sf(round((statistic + centers) / self.step), laws)

    def spread(self, weights: NDArray[np.float64]) -> float:
        """Return the standard deviation of the sum of the terms under the null, in nats."""
        levels = _counted(weights)
        return math.sqrt(sum(n * _moments(self.share * level, self.step)[1] for level, n in levels))

    def _center(self, level: float) -> float:
        first, _ = _moments(self.share * level, self.step)
        return round(first / _CENTER_UNIT) * _CENTER_UNIT


def _counted(weights: NDArray[np.float64]) -> list[tuple[float, int]]:
    """Return every weight that occurs, with how often."""
    levels, counts = np.unique(weights, return_counts=True)
    return list(zip(levels.tolist(), counts.tolist(), strict=True))


def _gain(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return g, which has mean 0 under the null."""
    found: NDArray[np.float64] = (1.0 - TILT) * np.exp(TILT * scores) - 1.0
    return found


@lru_cache(maxsize=256)
def _law(share: float, step: float) -> tuple[int, NDArray[np.float64]]:
    """Return the law of a rounded term: its smallest value in steps, and the log masses.

    A value is reached from a score on: 1 + e g(s) >= exp(j step). Of the 2^52 equally likely scores
    those are counted whose cell's midpoint lies beyond.
    """
    low = math.floor(math.log1p(-TILT * share) / step)
    high = math.floor(math.log1p(share * float(_gain(np.array(_LARGEST)))) / step)
    gains = np.expm1(np.arange(low + 1, high + 1) * step) / share
    complements = ((gains + 1.0) / (1.0 - TILT)) ** (-1.0 / TILT)  # 1 - u at which it is reached
    reached = np.minimum(np.floor(complements * _CELLS + 0.5) / _CELLS, 1.0)
    masses = -np.diff(np.concatenate([[1.0], reached, [0.0]]))
    logs = np.log(masses, out=np.full(len(masses), -np.inf), where=masses > 0)
    logs.flags.writeable = False
    return low, logs


@lru_cache(maxsize=256)
def _moments(share: float, step: float) -> tuple[float, float]:
    """Return mean and variance of a rounded term, in nats."""
    low, logs = _law(share, step)
    values, masses = (low + np.arange(len(logs))) * step, np.exp(logs)
    mean = float(masses @ values)
    return mean, float(masses @ (values - mean) ** 2)


def _check(
    shares: NDArray[np.float64], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> None:
    if not ((shares >= 0) & (shares <= 1)).all():
        raise SchemeParameterError(f"shares lie in 0..1, found {shares.tolist()}")
    if scores.size and not (scores.min() >= 0 and weights.min() >= 0 and weights.max() <= 1):
        raise SchemeParameterError("scores are >= 0 and weights in 0..1; one is not")
