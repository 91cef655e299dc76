"""Keys of this project's scheme that ask the same of a text, held against it in one pass.

Keys of one unit, context width and account share score the same pairs: those are cut once, and
thousands of keys cost what their arithmetic costs. Their decoys are shared as well.

Rule 1: decoy keys are drawn from the pairs that are tested, by SHAKE-256. Whoever recomputes the
test draws the same ones, nobody picks those that suit him, and none depends on the key.
Rule 2: one statistic for keys and decoys: the log p-value of the best form of the text, so that
ranks account for having looked at several.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.detection.distinct_pairs import context_identities, distinct_pairs
from watermark.detection.key_scores import decoy_context_keys, key_sums, pairs_generator
from watermark.detection.result import DecoyRank, DetectionResult
from watermark.errors import TextTooShortError
from watermark.keys import LABEL_CONTEXT
from watermark.stats import affordable_decoys, decoys_reached, gamma_log_sfs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from watermark.detection.distinct_pairs import DistinctPairs
    from watermark.detection.forms import TextForm
    from watermark.keys import KeyRecord

_DECOY_BLOCK: Final = 1 << 16


@dataclass(frozen=True, slots=True, repr=False)
class KeyGroup:
    """Records of one unit, context width and account share, their context keys derived.

    Attributes:
        records: At least one.
        indices: Where each stands among all records of the call.
    """

    records: tuple[KeyRecord, ...]
    indices: tuple[int, ...]
    _context_keys: NDArray[np.uint8]

    @classmethod
    def of(cls, records: Sequence[KeyRecord], indices: Iterable[int]) -> KeyGroup:
        """Derive the context keys of the records at some indices."""
        chosen = tuple(indices)
        members = tuple(records[i] for i in chosen)
        keys = b"".join(record.secret.subkey(LABEL_CONTEXT, 16) for record in members)
        return cls(members, chosen, np.frombuffer(keys, np.uint8).reshape(-1, 16))

    @property
    def unit(self) -> str:
        """The unit of all its keys."""
        return self.records[0].unit

    def __repr__(self) -> str:
        """Show how many keys there are, and nothing of them."""
        return f"<KeyGroup of {len(self.records)} keys>"

    def detect(
        self,
        forms: Sequence[TextForm],
        exclude: Sequence[NDArray[np.uint32]] = (),
        *,
        decoys: int = 0,
    ) -> list[DetectionResult]:
        """Hold every key against one body of evidence.

        Args:
            forms: The body in its forms, at least one.
            exclude: Unit ids of texts that the writer had in view.
            decoys: Decoy keys to rank among; fewer where pairs times decoys pass what is worth
                the time.

        Returns:
            One result a record; `log_pvalue_family` is corrected for the forms only.

        Raises:
            TextTooShortError: No form has a position with a whole context before it.
        """
        first = self.records[0]
        excluded = context_identities(exclude, first.context_width)
        bodies = [distinct_pairs(form.ids, first.context_width, excluded) for form in forms]
        if not any(body.n_contexts for body in bodies):
            raise TextTooShortError(
                f"nothing to score: {bodies[0].n_tokens} units, and a reply needs at least "
                f"{first.context_width + 1} at context width {first.context_width}; pass a longer "
                "text"
            )
        found = _Strengths.of(self._context_keys, bodies, first.account_share_q16)
        results = [self._result(i, found, forms, bodies) for i in range(len(self.records))]
        n_decoys = affordable_decoys(decoys, sum(map(len, bodies)))
        if not n_decoys:
            return results
        reached = _reached(found.best, n_decoys, bodies, first.account_share_q16)
        return [
            replace(result, decoys=DecoyRank.of(n_decoys, int(count)))
            for result, count in zip(results, reached, strict=True)
        ]

    def _result(
        self,
        index: int,
        found: _Strengths,
        forms: Sequence[TextForm],
        bodies: Sequence[DistinctPairs],
    ) -> DetectionResult:
        record, form = self.records[index], int(found.forms[index])
        body, log_pvalue = bodies[form], -float(found.best[index])
        n_scored = int(found.n_scored[form, index])
        return DetectionResult(
            statistic=float(found.statistics[form, index]),
            n_tokens=body.n_tokens,
            n_scored=n_scored,
            n_repeated=body.n_contexts - n_scored - body.n_excluded,
            log_pvalue=log_pvalue,
            log_pvalue_family=min(0.0, log_pvalue + float(np.log(len(forms)))),
            key_id=record.key_id,
            unit=record.unit,
            scheme=record.scheme,
            context_width=record.context_width,
            form=forms[form].name,
            n_forms=len(forms),
            n_excluded=body.n_excluded,
        )


@dataclass(frozen=True, slots=True)
class _Strengths:
    """What many keys find in the forms of one body.

    Attributes:
        statistics: Score sums, shape (forms, k).
        n_scored: Pairs scored, shape (forms, k).
        forms: Which form is best for each key, shape (k,).
        best: Minus the log p-value of that form, shape (k,), >= 0.
    """

    statistics: NDArray[np.float64]
    n_scored: NDArray[np.int64]
    forms: NDArray[np.int64]
    best: NDArray[np.float64]

    @classmethod
    def of(
        cls, context_keys: NDArray[np.uint8], bodies: Sequence[DistinctPairs], share: int
    ) -> _Strengths:
        sums = [
            key_sums(context_keys, body.contexts, body.tokens, account_share_q16=share)
            for body in bodies
        ]
        statistics = np.stack([part.statistics for part in sums])
        n_scored = np.stack([part.n_scored for part in sums])
        logs = np.stack([gamma_log_sfs(part.statistics, part.n_scored) for part in sums])
        forms = logs.argmin(axis=0)
        return cls(statistics, n_scored, forms, -logs.min(axis=0))


def _reached(
    strengths: NDArray[np.float64], n_decoys: int, bodies: Sequence[DistinctPairs], share: int
) -> NDArray[np.int64]:
    """Return how many decoys are as strong as each key, shape (k,)."""
    rng = _decoy_generator(bodies)
    reached = np.zeros(len(strengths), np.int64)
    for first in range(0, n_decoys, _DECOY_BLOCK):
        keys = decoy_context_keys(min(_DECOY_BLOCK, n_decoys - first), rng)
        reached += decoys_reached(strengths, _Strengths.of(keys, bodies, share).best)
    return reached


def _decoy_generator(bodies: Sequence[DistinctPairs]) -> np.random.Generator:
    """Return the generator of decoy keys that belongs to some bodies."""
    return pairs_generator(*(part for body in bodies for part in (body.contexts, body.tokens)))
