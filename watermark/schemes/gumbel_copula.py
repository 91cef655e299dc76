r"""Gumbel-max with a Gaussian copula.

Sampler: every candidate i has a keyed uniform u_i and a private standard normal eta_i; with

    U_i = Phi(rho Phi^-1(u_i) + sqrt(1 - rho^2) eta_i)

the candidate with the largest U_i^(1/p_i) wins. U_i is uniform when u_i is, so averaged over keys
candidate i wins with probability p_i, for every rho: -log(U_i)/p_i are independent exponential
times of rate p_i, and the first of them is i with probability p_i / sum p.
Rule 1: eta is fresh for every candidate, position and choice of n; one eta shared by all
candidates would favour likely tokens (.628 for a token of .600).
Rule 2: what is outside the candidate list is one more candidate, "rest", with the list's missing
mass and private randomness; a list cut without it has the law of the cut list.

Scorer: s = -log(1 - u). Null: the key is independent of the text, so the s of distinct pairs are
independent Exp(1) and their sum over n is Gamma(n, 1).

Source: Aaronson, talk at Simons Institute, 2022 (Gumbel-max); exponential races: Maddison,
Tarlow and Minka, NeurIPS 2014; the copula is this project's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from watermark.errors import SchemeParameterError
from watermark.seeding import flip_levels, levels_to_uniforms, pair_complements

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTORS: Final = 16
SUM_BLOCK: Final = 1 << 14  # levels, uniforms and factors stay in a core's second cache
_ADD_NOTHING: Final = np.ones(FACTORS)


def scores_from_levels(levels: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return s = -log(1 - u) of every level, shape kept, each in (0, 36.8).

    1 - u is the uniform of the flipped level, exactly, so no digit is lost near u = 1.
    """
    scores = np.log(levels_to_uniforms(flip_levels(levels)))
    return np.negative(scores, out=scores)


def score_sum(values: NDArray[np.uint64]) -> float:
    """Return the sum of -log(1 - u) of all pairs, in nats, a logarithm for `FACTORS` of them.

    The logarithm is the dearest operation, so that many values of 1 - u are multiplied before it
    is taken. Each is at least 2^-53 and 19 * 53 < 1022, so no product of `FACTORS` leaves the
    normal range. A product of m factors carries at most m - 1 roundings, a relative error below
    m 2^-53 and so an absolute error of its logarithm below m 2^-53; the logarithm and numpy's
    pairwise sum add a few roundings of their own. Over n pairs the error is below
    n 2^-53 + (log2(n) + 8) 2^-53 sum, 1.2e-16 a pair: less than the bound of summing n rounded
    logarithms.

    Args:
        values: As `pair_values` makes them, shape (n,). The sum of many is the sum over
            `SUM_BLOCK` at a time.
    """
    total = 0.0
    for start in range(0, len(values), SUM_BLOCK):
        complements = pair_complements(values[start : start + SUM_BLOCK])
        missing = -len(complements) % FACTORS
        if missing:
            complements = np.concatenate((complements, _ADD_NOTHING[:missing]))
        total -= float(np.log(np.multiply.reduce(complements.reshape(FACTORS, -1), axis=0)).sum())
    return total


@dataclass(frozen=True, slots=True)
class CopulaSampler:
    """Chooses among candidates with keyed or private randomness.

    Attributes:
        rho: Correlation of the mark, 0 (no mark) to 1 (plain Gumbel-max).
    """

    rho: float

    def __post_init__(self) -> None:
        """Refuse a correlation outside [0, 1]."""
        if not 0.0 <= self.rho <= 1.0:
            raise SchemeParameterError(f"rho must lie in 0..1, found {self.rho}")

    def choose(
        self,
        probabilities: NDArray[np.float64],
        uniforms: NDArray[np.float64] | None,
        rng: np.random.Generator,
        *,
        rest: float = 0.0,
    ) -> int:
        """Return the index of the winner, or len(probabilities) where "rest" wins.

        Args:
            probabilities: The candidates' probabilities, shape (n,), each >= 0; together with
                `rest` they need not sum to one, only their ratios count.
            uniforms: The candidates' keyed uniforms, shape (n,), in (0, 1); None draws all
                privately, for positions that are not marked.
            rng: Private randomness.
            rest: Mass outside the list, >= 0.

        Raises:
            SchemeParameterError: Shapes differ, a probability is negative or not a number, or
                there is no mass at all.
        """
        weights = np.append(np.asarray(probabilities, np.float64), rest)
        total = weights.sum()
        if not (weights >= 0).all() or not 0 < total < math.inf:
            raise SchemeParameterError("probabilities must be >= 0 with a positive, finite sum")
        times = rng.standard_exponential(len(weights))
        if uniforms is not None:
            if uniforms.shape != (len(weights) - 1,):
                raise SchemeParameterError("there must be one uniform a probability")
            times[:-1] = self._times(uniforms, rng)
        # A candidate without mass never arrives.
        arrivals = np.full(len(weights), math.inf)
        with np.errstate(over="ignore"):  # nor one whose mass is next to nothing
            np.divide(times, weights, out=arrivals, where=weights > 0)
        return int(np.argmin(arrivals))

    def _times(
        self, uniforms: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return -log U of every candidate, shape (n,), Exp(1) each."""
        if self.rho == 1.0:
            return -np.log(uniforms)
        normals = self.rho * special.ndtri(uniforms)
        normals += math.sqrt(1.0 - self.rho * self.rho) * rng.standard_normal(len(uniforms))
        times: NDArray[np.float64] = np.negative(special.log_ndtr(normals))
        return times
