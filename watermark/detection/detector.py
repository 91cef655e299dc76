"""Hold a key against a text.

Rule 1: of the positions with a context, the first of each context in a reply is scored.
Rule 2: over everything tested together, each (context, token) pair is scored once.
Rule 3: positions of the account channel are not scored by the epoch test.
Rule 4: no score of a single position leaves this module while the key is secret.

Why the p-value is exact: the key is drawn independently of the text under the null, and the
stream of a context is a pseudorandom function of it, so distinct pairs have independent uniform u
whatever the text is; which positions are scored depends on the text's equalities (and, for Rule
3, on route bits that are independent of the stream bits), never on u. The sum of n scores
-log(1 - u) is then Gamma(n, 1), and its upper tail at the observed sum is the p-value. Repeats
are found on the 64-bit stream of a context: two contexts that share it share every u, so leaving
the second out is what independence asks for.

Source: `watermark/spec/seeding.md`; Aaronson 2022 for the score; Fernandez et al. 2023
(2308.00113) for the Gamma tail and for scoring each pair once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from watermark.detection.positions import first_occurrences
from watermark.detection.result import DetectionResult
from watermark.errors import TextTooShortError, UnitMismatchError
from watermark.keys import LABEL_CONTEXT, KeyRecord
from watermark.schemes import scores_from_levels
from watermark.seeding import (
    ContextPRF,
    as_token_ids,
    context_windows,
    is_account_channel,
    pair_levels,
    pair_values,
)
from watermark.stats import gamma_log_sf, holm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from watermark.text import Unit

    TokenIds = Sequence[int] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Scored:
    """The pairs of one or more replies that count, as 64-bit values."""

    values: NDArray[np.uint64]
    n_tokens: int
    n_contexts: int


class Detector:
    """One key record, ready to be held against texts.

    Example:
        >>> detector = Detector(record, unit)            # doctest: +SKIP
        >>> detector.detect("some text").log10_pvalue    # doctest: +SKIP
        -0.31
    """

    __slots__ = ("_prf", "_unit", "record")

    def __init__(self, record: KeyRecord, unit: Unit | None = None) -> None:
        """Derive the context key.

        Args:
            record: The key.
            unit: How to cut text; None where only token ids will be given.

        Raises:
            UnitMismatchError: The unit is not the one that the key was made for.
        """
        if unit is not None and unit.unit_id != record.unit:
            message = (
                f"key {record.key_id!r} was made for {record.unit}, the unit given is "
                f"{unit.unit_id}; load the unit that the key names"
            )
            raise UnitMismatchError(message)
        self.record = record
        self._unit = unit
        self._prf = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16))

    def __repr__(self) -> str:
        """Show which key and unit, nothing of the secret."""
        return f"<Detector key={self.record.key_id!r} unit={self.record.unit}>"

    def detect(self, text: str | TokenIds) -> DetectionResult:
        """Test one reply or document.

        Args:
            text: Characters, or unit ids in 0..2^32 - 2.

        Raises:
            TextTooShortError: There is no position with a whole context before it.
            TextEncodingError: The text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
        """
        return self.detect_pooled([text])

    def detect_pooled(self, replies: Iterable[str | TokenIds]) -> DetectionResult:
        """Test several replies as one body of evidence: one p-value, each pair scored once.

        Args:
            replies: Each starts afresh: no context reaches from one into the next.

        Raises:
            TextTooShortError: No reply holds a position with a whole context before it.
            TextEncodingError: A text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
        """
        parts = [self._score(self._ids(reply)) for reply in replies]
        n_contexts = sum(part.n_contexts for part in parts)
        n_tokens = sum(part.n_tokens for part in parts)
        if n_contexts == 0:
            width = self.record.context_width
            message = (
                f"nothing to score: {n_tokens} units, and a reply needs at least {width + 1} at "
                f"context width {width}; pass a longer text"
            )
            raise TextTooShortError(message)
        values = parts[0].values
        if len(parts) > 1:
            values = np.concatenate([part.values for part in parts])
            values = values[first_occurrences(values)]
        return self._result(values, n_tokens, n_contexts)

    def detect_each(self, texts: Sequence[str | TokenIds]) -> list[DetectionResult]:
        """Test every text on its own, with Holm's correction over all of them.

        Raises:
            TextTooShortError: A text holds no position with a whole context before it.
            TextEncodingError: A text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
        """
        return correct_family([self.detect(text) for text in texts])

    def _ids(self, text: str | TokenIds) -> NDArray[np.uint32]:
        if not isinstance(text, str):
            return as_token_ids(text)
        if self._unit is None:
            raise UnitMismatchError("characters need a unit; make the Detector with one")
        return self._unit.encode(text)

    def _score(self, ids: NDArray[np.uint32]) -> _Scored:
        """Return the pairs of one reply that count (rules 1 and 3)."""
        width = self.record.context_width
        contexts = context_windows(ids, width)
        streams, routes = self._prf.evaluate(contexts)
        tokens = ids[width:]
        n_contexts = len(contexts)
        if self.record.account_share_q16:
            is_epoch = ~is_account_channel(routes, self.record.account_share_q16)
            streams, tokens = streams[is_epoch], tokens[is_epoch]
        is_first = first_occurrences(streams)
        if not is_first.all():
            streams, tokens = streams[is_first], tokens[is_first]
        return _Scored(pair_values(streams, tokens), len(ids), n_contexts)

    def _result(
        self, values: NDArray[np.uint64], n_tokens: int, n_contexts: int
    ) -> DetectionResult:
        statistic = float(scores_from_levels(pair_levels(values)).sum())
        log_pvalue = gamma_log_sf(statistic, len(values))
        record = self.record
        return DetectionResult(
            statistic=statistic,
            n_tokens=n_tokens,
            n_scored=len(values),
            n_repeated=n_contexts - len(values),
            log_pvalue=log_pvalue,
            log_pvalue_family=log_pvalue,
            key_id=record.key_id,
            unit=record.unit,
            scheme=record.scheme,
            context_width=record.context_width,
        )


def correct_family(results: Sequence[DetectionResult]) -> list[DetectionResult]:
    """Return results of tests made together with their family-wise p-values (Holm)."""
    adjusted = holm([result.log_pvalue for result in results])
    return [
        replace(result, log_pvalue_family=log_pvalue)
        for result, log_pvalue in zip(results, adjusted, strict=True)
    ]
