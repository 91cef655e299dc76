"""What a detection says; no verdict inside.

Rule: what is said of fewer than 16 pairs could tell the score of one, and with it the secret stream
of its context. Such a result has no statistic, and its p-values are one of three levels, rounded
up, which leaves them valid. The exact sums of texts that overlap tell their difference, too:
results under a secret key are for those who may know it, and others are answered with noise
(`watermark.detection.oracle`).
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.errors import SchemeParameterError
from watermark.schemes import GAMMA, NullLaw
from watermark.stats import (
    LN_10,
    binomial_log_sf,
    decoy_log_pvalue,
    keywise_rate,
    smallest_log_pvalue,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


FEWEST_SHOWN: Final = 16
"""Scored pairs of which exact figures are given; of fewer, a level."""
_LEVELS: Final = (math.log(1e-4), math.log(1e-2), 0.0)
_LOG_CONTRADICTION: Final = math.log(1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoyRank:
    """Where a key stands among decoy keys that were held against the same text.

    Attributes:
        n_decoys: Decoy keys.
        n_reached: Those whose statistic is at least that of the key.
        log_pvalue_family: Natural log of the p-value after Holm over all tests made together.
    """

    n_decoys: int
    n_reached: int
    log_pvalue_family: float

    @classmethod
    def of(cls, n_decoys: int, n_reached: int) -> DecoyRank:
        """Return the rank of a test that was made alone."""
        log_pvalue = decoy_log_pvalue(n_reached, n_decoys)
        return cls(n_decoys=n_decoys, n_reached=n_reached, log_pvalue_family=log_pvalue)

    @property
    def log_pvalue(self) -> float:
        """Natural log of (1 + n_reached) / (n_decoys + 1); it needs no closed form."""
        return decoy_log_pvalue(self.n_reached, self.n_decoys)

    @property
    def log_pvalue_floor(self) -> float:
        """Natural log of the smallest p that so many decoys support."""
        return smallest_log_pvalue(self.n_decoys)

    def contradicts(self, log_pvalue: float) -> bool:
        """Return whether more decoys reached the statistic than a p-value can explain.

        Were p right, the count would be binomial; it is called a contradiction at 1e-9. Fewer
        than expected is no fault: p is then only too large.
        """
        p = math.exp(log_pvalue)
        if p >= 1.0 or self.n_reached == 0:
            return False
        if p == 0.0:
            return True
        return binomial_log_sf(self.n_reached, self.n_decoys, p) < _LOG_CONTRADICTION


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DetectionResult:
    """One key held against one text.

    Null: the text was produced without this key.

    Attributes:
        statistic: Sum of the scores, in nats; nan under `FEWEST_SHOWN` pairs.
        n_tokens: Units in the text.
        n_scored: Pairs scored.
        n_repeated: Positions with a context that were left out as repeats.
        log_pvalue: Natural log of the p-value of this one test, from `law`; under `FEWEST_SHOWN`
            pairs rounded up to 0.0001, 0.01 or 1.
        log_pvalue_family: The same after correction for the forms looked at, and Holm over all
            tests made together.
        key_id: The key tested.
        unit: The key's unit.
        scheme: The key's scheme.
        context_width: Preceding units in a context.
        law: Where the p-value comes from; by default the statistic is Gamma(n_scored, 1).
        form: Which form of the text this is: `raw` or `canonical`.
        n_forms: Forms that were looked at; `log_pvalue_family` is corrected for them.
        n_excluded: Positions left out because their context occurs in text to exclude; they are
            not among the repeats.
        decoys: The same by rank among decoy keys, which accounts for all forms; None if none
            were asked for, where `law` is an exhausted key space itself, and under `FEWEST_SHOWN`
            pairs.
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
    n_excluded: int = 0
    decoys: DecoyRank | None = None

    def __post_init__(self) -> None:
        """Keep no exact figure of a few pairs."""
        if self.n_scored < FEWEST_SHOWN:
            few = {
                "statistic": math.nan if self.n_scored else 0.0,
                "log_pvalue": level_of(self.log_pvalue),
                "log_pvalue_family": level_of(self.log_pvalue_family),
                "decoys": None,
            }
            for name, value in few.items():
                object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Show the answer in one line."""
        excluded = f" excluded={self.n_excluded}" if self.n_excluded else ""
        decoys = ""
        if self.decoys is not None:
            log10 = self.decoys.log_pvalue / LN_10
            decoys = f" decoys: p=10^{log10:.2f} of {self.decoys.n_decoys}"
        return (
            f"<DetectionResult key={self.key_id!r} p=10^{self.log10_pvalue:z.2f} "
            f"family-wise=10^{self.log10_pvalue_family:z.2f} ({self.law.name}) "
            f"scored={self.n_scored} of {self.n_tokens}{excluded} effect={self.effect:.3f}"
            f"{decoys}>"
        )

    def _repr_html_(self) -> str:
        """Return the answer as a small table, for notebooks."""
        return results_table([("", self)])

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
        """Mean excess of a score over its null mean, in null standard deviations.

        0 where nothing was scored, nan where there is no statistic.
        """
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

    def keywise_rate(self, *, alpha: float, beta: float) -> float:
        """Return how often one fixed key rejects at alpha over texts, for most keys.

        The p-value is exact over keys; for all but a share beta of keys the rate over the texts
        that the key meets, repetitive and templated ones too, is at most this (Markov).

        Raises:
            SchemeParameterError: alpha or beta is not in (0, 1).
        """
        return keywise_rate(alpha, beta=beta)


def level_of(log_pvalue: float) -> float:
    """Return the level that the log p-value of a few pairs is rounded up to."""
    return next((level for level in _LEVELS if log_pvalue <= level), 0.0)


_HEADINGS: Final = ("", "key", "units", "scored", "excluded", "log10 p", "family-wise", "decoys")


def results_table(rows: Iterable[tuple[str, DetectionResult]]) -> str:
    """Return an HTML table of named results; nothing in it is taken for mark-up."""
    return html_table(_HEADINGS, (_cells(name, result) for name, result in rows))


def html_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return an HTML table of some cells; nothing in it is taken for mark-up."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(name: str, result: DetectionResult) -> tuple[str, ...]:
    decoys = result.decoys
    return (
        name,
        result.key_id,
        str(result.n_tokens),
        str(result.n_scored),
        str(result.n_excluded),
        f"{result.log10_pvalue:z.2f}",
        f"{result.log10_pvalue_family:z.2f}",
        "" if decoys is None else f"{decoys.log_pvalue / LN_10:z.2f} of {decoys.n_decoys}",
    )
