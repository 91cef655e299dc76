"""What a detection says; no verdict inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from watermark.errors import SchemeParameterError
from watermark.schemes import GAMMA, NullLaw

LN_10: Final = math.log(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionResult:
    """One key held against one text.

    Null: the text was produced without this key.

    Attributes:
        statistic: Sum of the scores, in nats.
        n_tokens: Units in the text.
        n_scored: Pairs scored.
        n_repeated: Positions with a context that were left out as repeats.
        log_pvalue: Natural log of the p-value of this one test, from `law`.
        log_pvalue_family: The same after correction for the forms looked at, and Holm over all
            tests made together.
        key_id: The key tested.
        unit: The key's unit.
        scheme: The key's scheme.
        context_width: Preceding units in a context.
        law: Where the p-value comes from; by default the statistic is Gamma(n_scored, 1).
        form: Which form of the text this is: `raw` or `canonical`.
        n_forms: Forms that were looked at; `log_pvalue_family` is corrected for them.
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
    law: NullLaw = GAMMA
    form: str = "raw"
    n_forms: int = 1

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
        if not self.n_scored:
            return 0.0
        return (self.statistic / self.n_scored - self.law.score_mean) / self.law.score_sd

    def rejects_null(self, *, alpha: float) -> bool:
        """Return whether the family-wise p-value is at most alpha, fixed before looking.

        Raises:
            SchemeParameterError: alpha is not in (0, 1).
        """
        if not 0.0 < alpha < 1.0:
            raise SchemeParameterError(f"alpha must lie in (0, 1), found {alpha}")
        return self.log_pvalue_family <= math.log(alpha)
