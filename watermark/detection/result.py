"""What a detection says; no verdict inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from watermark.errors import SchemeParameterError

LN_10: Final = math.log(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionResult:
    """One key held against one text.

    Null: the text was produced without this key.

    Attributes:
        statistic: Sum of the scores, in nats.
        n_tokens: Units in the text.
        n_scored: Positions scored; under the null the statistic is Gamma(n_scored, 1).
        n_repeated: Positions with a context that were left out as repeats.
        log_pvalue: Natural log of the exact p-value of this one test.
        log_pvalue_family: The same after Holm over all tests made together.
        key_id: The key tested.
        unit: The key's unit.
        scheme: The key's scheme.
        context_width: Preceding units in a context.
    """

    statistic: float
    n_tokens: int
    n_scored: int
    n_repeated: int
    log_pvalue: float
    log_pvalue_family: float
    key_id: str
    unit: str
    scheme: str
    context_width: int

    @property
    def log10_pvalue(self) -> float:
        """The p-value's decimal logarithm."""
        return self.log_pvalue / LN_10

    @property
    def log10_pvalue_family(self) -> float:
        """The family-wise p-value's decimal logarithm."""
        return self.log_pvalue_family / LN_10

    @property
    def effect(self) -> float:
        """Mean excess of a score over its null mean, in null standard deviations; 0 if none."""
        return self.statistic / self.n_scored - 1.0 if self.n_scored else 0.0

    def rejects_null(self, *, alpha: float) -> bool:
        """Return whether the family-wise p-value is at most alpha, fixed before looking.

        Raises:
            SchemeParameterError: alpha is not in (0, 1).
        """
        if not 0.0 < alpha < 1.0:
            raise SchemeParameterError(f"alpha must lie in (0, 1), found {alpha}")
        return self.log_pvalue_family <= math.log(alpha)
