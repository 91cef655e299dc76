"""What is fixed about a test before the first query: level, bets, decoys, weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from watermark.errors import AuditDesignError
from watermark.radioactivity.delivered import ContextWeights
from watermark.stats import decoys_for

DEFAULT_ALPHA: Final = 1e-6
MAX_DECOYS: Final = 9_999
"""What an audit draws by itself: p to 1e-4 by rank, the closed form beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How the scores of an audit become a statement.

    Attributes:
        alpha: Level of the anytime-valid test, in (0, 1).
        lambdas: Stakes of the bet, each in [0, 1); one that stands twice has twice the capital.
        n_decoys: Decoy keys, >= 1: there is no audit without.
        weights: How much a context counts.
        n_answers: Answers that are planned for, >= 1; tunes the interval of the dose.
        reference: Mean excess of the marked text itself under its key, in nats a score: what the
            dose is measured against.
    """

    alpha: float = DEFAULT_ALPHA
    lambdas: tuple[float, ...]
    n_decoys: int = MAX_DECOYS
    weights: ContextWeights = field(default_factory=ContextWeights)
    n_answers: int = 1000
    reference: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise AuditDesignError(f"alpha must lie in (0, 1), found {self.alpha}")
        if not self.lambdas or not all(0.0 <= one < 1.0 for one in self.lambdas):
            raise AuditDesignError(f"stakes lie in [0, 1), found {self.lambdas}")
        if self.n_decoys < 1 or self.n_answers < 1:
            raise AuditDesignError(
                f"an audit needs decoy keys and answers, found {self.n_decoys} and "
                f"{self.n_answers}; plan one of each at least"
            )
        if not (math.isfinite(self.reference) and self.reference > 0):
            raise AuditDesignError(
                f"the excess of marked text is above 0, found {self.reference}; measure it on "
                "what was delivered"
            )


def stakes_for(effect: float) -> tuple[float, ...]:
    """Return the stakes of a bet on an effect that is known to a factor of two or so.

    The best stake against a mean of 1 + e is e / (1 + e) (`stats.tilted`). Half of the capital is
    staked there, a quarter each against half and twice the effect: against the best stake that
    loses log 2 at most where the guess is right, and little where it is wrong by a factor of two.

    Args:
        effect: Mean excess of a score, in standard deviations, > 0.

    Raises:
        AuditDesignError: The effect is not positive.
    """
    if not 0.0 < effect < math.inf:
        raise AuditDesignError(f"an effect is above 0, found {effect}; plan for a smaller dose")
    supposed = (factor * effect for factor in (0.5, 1.0, 1.0, 2.0))
    return tuple(one / (1.0 + one) for one in supposed)


def decoys_of(alpha: float) -> int:
    """Return how many decoy keys an audit at a level draws."""
    return min(MAX_DECOYS, decoys_for(alpha))
