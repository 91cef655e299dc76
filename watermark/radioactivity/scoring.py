"""Keys, decoys and observations to scores.

Rule 1: a position of a key's account channel says nothing about the epoch, and counts for
nothing. Rule 2: a decoy is scored exactly as a key: same pairs, same weights, same sum. Rule 3:
single scores stay in here while a key is secret.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.detection.key_scores import decoy_context_keys, key_score_blocks, pairs_generator
from watermark.errors import AuditDesignError
from watermark.keys import LABEL_CONTEXT
from watermark.radioactivity.pairs import LEVELS
from watermark.stats import affordable_decoys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from watermark.keys import KeyRecord
    from watermark.radioactivity.delivered import ContextWeights
    from watermark.radioactivity.pairs import Observation
    from watermark.stats import DilutedSum

_DECOY_BLOCK: Final = 1 << 10
_BLOCK_SCORES: Final = 1 << 17  # a score is worked on while it is in the cache


@dataclass(frozen=True, slots=True, repr=False)
class KeyScores:
    """What one key makes of all observations; as secret as the key.

    Attributes:
        scores: Of the pairs that count, in nats, shape (n,).
        weights: Theirs, in (0, 1], shape (n,).
        answers: Index of the answer that each came from, ascending, shape (n,).
    """

    scores: NDArray[np.float64]
    weights: NDArray[np.float64]
    answers: NDArray[np.int64]

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return f"<KeyScores of {len(self.scores)} pairs>"


class Scorer:
    """The pairs of an audit, held against its keys and against decoys."""

    __slots__ = ("_answers", "_contexts", "_counts", "_tokens", "_weights", "records")

    def __init__(
        self,
        records: Sequence[KeyRecord],
        observations: Sequence[Observation],
        weights: ContextWeights,
    ) -> None:
        """Lay out pairs and weights.

        Args:
            records: Keys of one unit, context width and account share, at least one.
            observations: In the order of the audit.
            weights: How much a context counts.

        Raises:
            AuditDesignError: The keys do not belong together, or one is an engine's.
        """
        check_keys(records)
        self.records = tuple(records)
        width = records[0].context_width
        parts = [np.zeros((0, width), np.uint32), *(one.contexts for one in observations)]
        self._contexts = np.concatenate(parts)
        self._tokens = np.concatenate(
            [np.zeros(0, np.uint32), *(one.tokens for one in observations)]
        )
        shares = np.concatenate([np.zeros(0), *(one.shares for one in observations)])
        self._answers = np.repeat(
            np.arange(len(observations)), [len(one) for one in observations]
        ).astype(np.int64)
        tested = [one.key_id for one in records]
        self._weights = _levelled(shares * weights.of(tested, self._contexts))
        self._counts = self._weights > 0

    def __repr__(self) -> str:
        """Show how much there is, and nothing of it."""
        return f"<Scorer of {len(self._tokens)} pairs under {len(self.records)} keys>"

    @property
    def weights(self) -> NDArray[np.float64]:
        """Of the pairs that count, the same under every key, shape (n,)."""
        return self._weights[self._counts]

    def scores(self, index: int) -> KeyScores:
        """Return what a key makes of the pairs that count."""
        scores = np.zeros(0)
        for _, block in self._blocks(_key_rows(self.records[index])):
            scores = block[0]
        is_epoch = scores > 0  # rule 1: of the account channel they are 0, else never
        return KeyScores(
            scores[is_epoch],
            self.weights[is_epoch],
            self._answers[self._counts][is_epoch],
        )

    def n_decoys(self, wanted: int) -> int:
        """Return how many decoys are worth their time."""
        return affordable_decoys(wanted, int(self._counts.sum()) * len(self.records))

    def decoy_statistics(self, statistic: DilutedSum, n_decoys: int) -> NDArray[np.float64]:
        """Return the pooled statistic under decoy keys, shape (n_decoys,).

        Each decoy is as many random keys as there are keys. They follow from the pairs, so that
        whoever recomputes the audit draws the same ones.
        """
        rng = pairs_generator(self._contexts, self._tokens)
        weights = self.weights
        centers = statistic.centers(weights)
        found = np.zeros(n_decoys)

        def add(first: int, keys: NDArray[np.uint8]) -> None:
            for rows, block in self._blocks(keys):
                place = slice(first + rows.start, first + rows.stop)
                terms = statistic.terms_about(block, weights, centers)
                found[place] += np.where(block > 0, terms, 0.0).sum(axis=1)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in self.records:
                starts = range(0, n_decoys, _DECOY_BLOCK)
                keys = (decoy_context_keys(min(_DECOY_BLOCK, n_decoys - i), rng) for i in starts)
                list(pool.map(add, starts, keys))
        return found

    def _blocks(self, keys: NDArray[np.uint8]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        return key_score_blocks(
            keys,
            self._contexts[self._counts],
            self._tokens[self._counts],
            account_share_q16=self.records[0].account_share_q16,
            block_scores=_BLOCK_SCORES,
        )


def check_keys(records: Sequence[KeyRecord]) -> None:
    """Refuse keys that cannot be tested together.

    Raises:
        AuditDesignError: There is none, they are of different shapes, or an engine marks with one.
    """
    shapes = {(one.unit, one.context_width, one.account_share_q16) for one in records}
    if len(shapes) != 1:
        raise AuditDesignError(
            f"{len(records)} keys of {len(shapes)} units, widths or account shares; an audit "
            "tests keys of one unit, width and share, so plan one audit for each"
        )
    ids = [one.key_id for one in records]
    if len(set(ids)) != len(ids):
        raise AuditDesignError("a key stands twice in the plan; name each once")
    for one in records:
        if not one.is_evidence:
            raise AuditDesignError(
                f"key {one.key_id!a} is a static green list, which anybody can read off the "
                "replies, and is no evidence; audit with keys of gumbel-copula"
            )
        if not one.is_copula or one.account_share_q16 >= 65536:  # noqa: PLR2004 - all of it
            raise AuditDesignError(
                f"with key {one.key_id!a} an engine marks, or it gives every position to accounts; "
                "audit with keys of this project's scheme"
            )


def _key_rows(record: KeyRecord) -> NDArray[np.uint8]:
    return np.frombuffer(record.secret.subkey(LABEL_CONTEXT, 16), np.uint8).reshape(1, 16)


def _levelled(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(weights * LEVELS) / LEVELS
