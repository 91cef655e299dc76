r"""A detector that others may ask: a verdict and a coarse p-value, from a noisy score.

Whoever may ask a detector freely learns the key's numbers from its answers: change one unit, ask
again, and see whether the score rose. The answer here is made from the score and one normal draw,
and says no more than a level. The exact figure stays offline (`Detector`).

Rule 1: the text is brought into canonical form, and only that form is scored.
Rule 2: the noise is a function of the key and of what is scored (the set of distinct pairs), not
of the characters. Two texts with one score have one noise: rewriting a text without changing its
units, or repeating the question, averages nothing out.
Rule 3: how long a text is, is counted without the key.
Rule 4: no score, no z and no p leaves; one of four levels does.

Why the level is a valid p-value: under the null the detector's p is uniform, so z = Phi^-1(1 - p)
is standard normal over the choice of the key's context subkey. The noise e is standard normal
over the choice of another subkey (HKDF labels are independent), given the text. So
(z + sigma e) / sqrt(1 + sigma^2) is standard normal, its upper tail p' is uniform, and
P(level <= a) <= P(p' <= a) = a for every level a.

What it costs: at a nominal z the test behaves as if it had seen a share 1 / (1 + sigma^2) of the
units. What it does not do: the noise is fresh for every new text, so many different texts with a
unit in common do tell about it (`benchmarks.oracle`); the budget of questions bounds that.

Source: SECURITY, "detector oracle"; Pang et al. 2024 (2402.16187) for the attacks on public
detection interfaces.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from watermark.detection.detector import Detector
from watermark.errors import SchemeParameterError, TextTooShortError
from watermark.keys import LABEL_DETECTOR_NOISE, SUBKEY_BYTES
from watermark.seeding import context_windows
from watermark.text.canonical import canonical

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watermark.keys import KeyRecord
    from watermark.text import Unit

LEVELS: Final = (1e-12, 1e-6, 1e-3, 1.0)
"""The p-values that an answer can name: the smallest that the noisy one does not exceed."""

MIN_UNITS: Final = 400
MIN_SIGMA: Final = 1.0
_WORD: Final = np.dtype("<u4")
_LEAST: Final = math.ulp(0.0)  # keeps the logarithm of a p-value of one below zero
_HALF_BITS: Final = 53


class Verdict(enum.StrEnum):
    """What an answer says, in words."""

    CARRIES = "carries-the-mark"
    UNCERTAIN = "uncertain"
    NOT_FOUND = "not-found"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoarseAnswer:
    """What an oracle says of one text.

    Attributes:
        verdict: The level in words: up to 1e-6 the text carries the mark, up to 1e-3 that is
            uncertain.
        pvalue_at_most: One of `LEVELS`.
        key_id: The key tested.
        n_units: Distinct pairs of context and unit, counted without the key.
        scored: Names what was scored without saying it, 16 hex digits, for an audit.
    """

    verdict: Verdict
    pvalue_at_most: float
    key_id: str
    n_units: int
    scored: str


class Oracle:
    """One key, to be asked about texts.

    Args:
        record: The key, with its secret.
        unit: How the key cuts text.
        sigma: Standard deviation of the noise, in those of the score under the null.
        min_units: Distinct pairs that a text must have.

    Raises:
        KeysError: The key has no secret to make noise from: a disclosed one, or an engine's. Its
            figures need no oracle.
        SchemeParameterError: `sigma` is below 1.
        UnitMismatchError: The unit is not the key's.
    """

    __slots__ = ("_detector", "_min_units", "_noise_key", "_sigma", "_unit")

    def __init__(
        self,
        record: KeyRecord,
        unit: Unit,
        *,
        sigma: float = MIN_SIGMA,
        min_units: int = MIN_UNITS,
    ) -> None:
        if not MIN_SIGMA <= sigma < math.inf:
            raise SchemeParameterError(f"sigma must be at least {MIN_SIGMA:g}, found {sigma}")
        size = SUBKEY_BYTES[LABEL_DETECTOR_NOISE]
        self._noise_key = record.secret.subkey(LABEL_DETECTOR_NOISE, size)
        self._detector = Detector(record, unit)
        self._unit = unit
        self._sigma = sigma
        self._min_units = min_units

    def __repr__(self) -> str:
        """Show which key, nothing of the secret."""
        return f"<Oracle key={self._detector.record.key_id!r}>"

    def ask(self, text: str) -> CoarseAnswer:
        """Return what may be said of a text.

        Raises:
            TextTooShortError: It has too few units.
            TextEncodingError: It holds half a surrogate pair.
        """
        ids = self._unit.encode(canonical(text))
        pairs = distinct_pairs(ids, self._detector.record.context_width)
        if len(pairs) < self._min_units:
            raise TextTooShortError(
                f"the text has {len(pairs)} distinct units in context, and an answer needs "
                f"{self._min_units}; ask about a longer text"
            )
        tag = hmac.digest(self._noise_key, _digest_of(pairs), hashlib.sha256)
        log_pvalue = self._noisy(self._detector.detect(ids).log_pvalue, _normal_of(tag))
        level = coarse_level(log_pvalue)
        return CoarseAnswer(
            verdict=_verdict_of(level),
            pvalue_at_most=level,
            key_id=self._detector.record.key_id,
            n_units=len(pairs),
            scored=tag[8:16].hex(),
        )

    def _noisy(self, log_pvalue: float, noise: float) -> float:
        return noisy_log_pvalue(log_pvalue, noise, self._sigma)


def distinct_pairs(ids: NDArray[np.uint32], context_width: int) -> NDArray[np.uint32]:
    """Return the pairs that a text scores under any key: the first of each context.

    Args:
        ids: Units of a text, shape (n,).
        context_width: Units in a context (h).

    Returns:
        Contexts with what follows, in ascending order, shape (m, h + 1).
    """
    contexts = context_windows(ids, context_width)
    if len(contexts) == 0:
        return np.empty((0, context_width + 1), np.uint32)
    ascending, first = np.unique(contexts, axis=0, return_index=True)
    return np.column_stack([ascending, ids[context_width:][first]])


def noisy_log_pvalue(log_pvalue: float, noise: float, sigma: float) -> float:
    """Return the log p-value of a score with noise added to it.

    Args:
        log_pvalue: Natural log of an exact p-value.
        noise: A standard normal draw.
        sigma: Its weight, in standard deviations of the score under the null.
    """
    z = -float(special.ndtri_exp(min(log_pvalue, -_LEAST)))
    return float(special.log_ndtr(-(z + sigma * noise) / math.hypot(1.0, sigma)))


def coarse_level(log_pvalue: float) -> float:
    """Return the smallest level that a p-value does not exceed."""
    return next(level for level in LEVELS if log_pvalue <= math.log(level))


def _verdict_of(level: float) -> Verdict:
    if level <= LEVELS[1]:
        return Verdict.CARRIES
    return Verdict.UNCERTAIN if level <= LEVELS[2] else Verdict.NOT_FOUND


def _digest_of(pairs: NDArray[np.uint32]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pairs, _WORD).tobytes()).digest()


def _normal_of(tag: bytes) -> float:
    """Return a standard normal draw from 64 uniform bits."""
    number = int.from_bytes(tag[:8], "little") >> (64 - _HALF_BITS)
    return float(special.ndtri((number + 0.5) * 2.0**-_HALF_BITS))
