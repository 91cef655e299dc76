"""Evidence that may be looked at after every document: e-values from betting.

Under the null each score s_t of a distinct pair has mean 1 given everything before it. Whoever
starts with a capital of 1 and stakes a share lambda_t of it on s_t > 1 holds

    E_t = product over i <= t of (1 + lambda_i (s_i - 1)),    0 <= lambda_i <= 1,

which stays >= 0 because s_i >= 0, and whose mean is 1 at every t if lambda_i is fixed before s_i
is seen (it is *predictable*): E is a non-negative martingale. By Ville's inequality

    P(sup over t of E_t >= 1 / alpha) <= alpha:

one may look as often as one likes and stop when one likes. No p-value computed again and again
allows that.

The best lambda depends on how strong the mark is, which nobody knows beforehand. So the capital
is spread evenly over a grid, each part stays with its lambda, and the sum of martingales is one:
it lags behind the best lambda of the grid by log(size of the grid) at most.

Rule 1: a stake may depend on the text's contexts and on scores before it, never on its own score
nor, where a model is tested, on which token was delivered.

Source: Ville 1939; Waudby-Smith and Ramdas, J. R. Stat. Soc. B 86 (2024), for the bets; Ramdas,
Grunwald, Vovk and Shafer, Stat. Sci. 38 (2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAMBDAS: Final[tuple[float, ...]] = (0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.6)
"""Stakes for effects from a hundredth to one standard deviation a score and beyond."""
_BLOCK: Final = 1 << 13


@dataclass(frozen=True, slots=True, kw_only=True)
class BettingEvalue:
    """The state of a bet, which is all that the next document needs.

    Attributes:
        lambdas: The grid of stakes, each in [0, 1].
        log_capitals: Natural log of each part's growth, one a stake.
        n_scored: Scores bet on so far.
        log_evalue_peak: Natural log of the largest value at the end of any update, >= 0.
    """

    lambdas: tuple[float, ...] = LAMBDAS
    log_capitals: tuple[float, ...] = field(default=())
    n_scored: int = 0
    log_evalue_peak: float = 0.0

    def __post_init__(self) -> None:
        if not self.lambdas or not all(0.0 <= stake <= 1.0 for stake in self.lambdas):
            raise SchemeParameterError(f"stakes lie in 0..1, found {self.lambdas}")
        if not self.log_capitals:
            object.__setattr__(self, "log_capitals", (0.0,) * len(self.lambdas))
        if len(self.log_capitals) != len(self.lambdas):
            raise SchemeParameterError("there must be one capital a stake")

    @property
    def log_evalue(self) -> float:
        """Natural log of the e-value now; valid where the stopping time was free to choose."""
        return float(np.logaddexp.reduce(self.log_capitals)) - math.log(len(self.lambdas))

    @property
    def log_pvalue(self) -> float:
        """Natural log of min(1, 1 / peak): an anytime-valid p-value, by Ville's inequality."""
        return min(0.0, -self.log_evalue_peak)

    def update(
        self, scores: NDArray[np.float64], stakes: NDArray[np.float64] | None = None
    ) -> BettingEvalue:
        """Return the state after betting on more scores.

        Args:
            scores: -log(1 - u) of pairs that are distinct from each other and from all before,
                in nats, shape (n,), >= 0.
            stakes: Multiples of the grid's stakes, in [0, 1], shape (n,); predictable (Rule 1).
                None bets the grid's stakes everywhere.

        Raises:
            SchemeParameterError: A score is negative, a stake is outside 0..1, or shapes differ.
        """
        if len(scores) and not scores.min() >= 0:
            raise SchemeParameterError("scores are >= 0; one is not")
        if stakes is not None:
            _check_stakes(stakes, scores)
        gains = np.zeros(len(self.lambdas))
        for start in range(0, len(scores), _BLOCK):
            part = slice(start, start + _BLOCK)
            excess = scores[part] - 1.0
            if stakes is not None:
                excess *= stakes[part]
            with np.errstate(divide="ignore"):  # all staked on a score of 0 is lost
                gains += np.log1p(np.multiply.outer(self.lambdas, excess)).sum(axis=1)
        capitals = tuple((np.asarray(self.log_capitals) + gains).tolist())
        after = BettingEvalue(
            lambdas=self.lambdas, log_capitals=capitals, n_scored=self.n_scored + len(scores)
        )
        peak = max(self.log_evalue_peak, after.log_evalue)
        object.__setattr__(after, "log_evalue_peak", peak)
        return after


def _check_stakes(stakes: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
    if stakes.shape != scores.shape or not ((stakes >= 0) & (stakes <= 1)).all():
        raise SchemeParameterError("there must be one stake in 0..1 a score")
