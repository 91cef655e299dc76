"""What is fixed about a test before the first query: level, supposed share, decoys, weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from watermark.errors import AuditDesignError
from watermark.radioactivity.delivered import ContextWeights
from watermark.stats import DilutedSum
from watermark.stats.diluted import SMALLEST_SHARE

DEFAULT_ALPHA: Final = 1e-6
FEW_DECOYS: Final = 9_999
"""What stands beside: controls, and looks before the end, have p to 1e-4 by rank."""
SPREAD: Final = (0.5, 1.0, 2.0)
"""Multiples of the guessed share that the capital of a bet is on, equally."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How the scores of an audit become a statement.

    Attributes:
        alpha: Level of the anytime-valid test, in (0, 1).
        share: Of the scores, as far as one can guess, that come from marked text, .001 to 1.
        n_decoys: Decoy keys, >= 1: there is no audit without.
        weights: How much a context counts.
        n_answers: Answers that are planned for, >= 1; tunes the interval of the dose.
        reference: Mean excess of the marked text itself under its key, in nats a score: what the
            dose is measured against.
    """

    alpha: float = DEFAULT_ALPHA
    share: float
    n_decoys: int = FEW_DECOYS
    weights: ContextWeights = field(default_factory=ContextWeights)
    n_answers: int = 1000
    reference: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise AuditDesignError(f"alpha must lie in (0, 1), found {self.alpha}")
        if not SMALLEST_SHARE <= self.share <= 1.0:
            raise AuditDesignError(
                f"a supposed share lies in {SMALLEST_SHARE:g}..1, found {self.share}"
            )
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

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares that the capital of the bet is spread over, equally.

        They are half of the guess, the guess and twice of it: against the best share that loses
        log 3 at most where the guess is right, and little more where it is wrong by a factor of
        two.
        """
        return tuple(min(1.0, factor * self.share) for factor in SPREAD)

    @property
    def statistic(self) -> DilutedSum:
        """The logarithm of the bet on the guess alone, as a statistic at a fixed number."""
        return DilutedSum(self.share)
