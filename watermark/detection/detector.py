"""Hold a key against a text.

Rule 1: the scheme's reader says which pairs of a reply count, and what they are worth.
Rule 2: over everything tested together, each (context, token) pair is scored once.
Rule 3: no score of a single position leaves this module while the key is secret.
Rule 4: what is excluded is excluded before anything is scored, by context, never by pair.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from watermark.detection.result import DetectionResult
from watermark.errors import TextTooShortError, UnitMismatchError
from watermark.schemes import NO_CONTEXTS, join, reader_of
from watermark.seeding import as_token_ids
from watermark.stats import holm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from watermark.keys import KeyRecord
    from watermark.schemes import Pairs, Reader
    from watermark.text import Unit

    TokenIds = Sequence[int] | NDArray[Any]


class Detector:
    """One key record, ready to be held against texts.

    Example:
        >>> detector = Detector(record, unit)            # doctest: +SKIP
        >>> detector.detect("some text").log10_pvalue    # doctest: +SKIP
        -0.31
    """

    __slots__ = ("_reader", "_unit", "record")

    _reader: Reader

    def __init__(self, record: KeyRecord, unit: Unit | None = None) -> None:
        """Derive what the key's scheme needs.

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
        self._reader = reader_of(record)

    def __repr__(self) -> str:
        """Show which key and unit, nothing of the secret."""
        return f"<Detector key={self.record.key_id!r} unit={self.record.unit}>"

    @property
    def reader(self) -> Reader:
        """The key's reader; what it returns is secret while the key is."""
        return self._reader

    def detect(
        self, text: str | TokenIds, *, exclude: Iterable[str | TokenIds] = ()
    ) -> DetectionResult:
        """Test one reply or document.

        Args:
            text: Characters, or unit ids in 0..2^32 - 2.
            exclude: Texts that the writer had in view, such as the prompt: no position is scored
                whose context occurs anywhere in them. The p-value stays valid whatever they are,
                as long as they were not chosen by the key.

        Raises:
            TextTooShortError: There is no position with a whole context before it.
            TextEncodingError: The text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
        """
        return self.detect_pooled([text], exclude=exclude)

    def detect_pooled(
        self, replies: Iterable[str | TokenIds], *, exclude: Iterable[str | TokenIds] = ()
    ) -> DetectionResult:
        """Test several replies as one body of evidence: one p-value, each pair scored once.

        Args:
            replies: Each starts afresh: no context reaches from one into the next.
            exclude: Texts that the writers had in view; see :meth:`detect`.

        Raises:
            TextTooShortError: No reply holds a position with a whole context before it.
            TextEncodingError: A text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
        """
        reader = self._reader
        excluded = self.excluded(exclude)
        parts: list[Pairs] = []
        n_tokens = n_contexts = n_excluded = 0
        for reply in replies:
            ids = self.ids(reply)
            positions = reader.positions(ids)
            parts.append(reader.read(positions, excluded=excluded))
            n_tokens += len(ids)
            n_contexts += len(positions)
            if len(excluded):
                n_excluded += len(reader.read(positions)) - len(parts[-1])
        if n_contexts == 0:
            width = reader.context_width
            message = (
                f"nothing to score: {n_tokens} units, and a reply needs at least {width + 1} at "
                f"context width {width}; pass a longer text"
            )
            raise TextTooShortError(message)
        return self._result(join(parts), n_tokens, n_contexts, n_excluded)

    def detect_each(self, texts: Sequence[str | TokenIds]) -> list[DetectionResult]:
        """Test every text on its own, with Holm's correction over all of them.

        Raises:
            TextTooShortError: A text holds no position with a whole context before it.
            TextEncodingError: A text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
        """
        return correct_family([self.detect(text) for text in texts])

    def ids(self, text: str | TokenIds) -> NDArray[np.uint32]:
        """Return the unit ids of a text, shape (n,).

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
        """
        if not isinstance(text, str):
            return as_token_ids(text)
        if self._unit is None:
            raise UnitMismatchError("characters need a unit; make the Detector with one")
        return self._unit.encode(text)

    def excluded(self, texts: Iterable[str | TokenIds]) -> NDArray[np.uint64]:
        """Return the contexts that are not scored because they occur in some texts."""
        found = [self._reader.contexts(ids) for ids in map(self.ids, texts) if len(ids)]
        return np.concatenate(found) if found else NO_CONTEXTS

    def _result(
        self, pairs: Pairs, n_tokens: int, n_contexts: int, n_excluded: int
    ) -> DetectionResult:
        reader, record = self._reader, self.record
        statistic = reader.statistic(pairs)
        log_pvalue = reader.log_pvalue(statistic, pairs)
        return DetectionResult(
            statistic=statistic,
            n_tokens=n_tokens,
            n_scored=len(pairs),
            n_repeated=n_contexts - len(pairs) - n_excluded,
            log_pvalue=log_pvalue,
            log_pvalue_family=log_pvalue,
            key_id=record.key_id,
            unit=record.unit,
            scheme=record.scheme,
            context_width=reader.context_width,
            law=reader.law(pairs),
            n_excluded=n_excluded,
        )


def correct_family(results: Sequence[DetectionResult]) -> list[DetectionResult]:
    """Return results of tests made together with their family-wise p-values (Holm).

    Each comes with the correction for its own forms of the text; that stays.
    """
    adjusted = holm([result.log_pvalue_family for result in results])
    return [
        replace(result, log_pvalue_family=log_pvalue)
        for result, log_pvalue in zip(results, adjusted, strict=True)
    ]
