"""Documents under one key; the only file of this room that holds one.

A document's p-value is that of `Detector.detect`: the same pairs, the same score, the same tail.
What differs is the order of work: thousands of documents are scored in one pass. A document with
fewer than `FEWEST_SHOWN` scored positions is not tested: its sum would tell too much of single
scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from watermark.corpora.blocks import Layer
from watermark.detection.result import FEWEST_SHOWN
from watermark.errors import CorpusError
from watermark.keys import LABEL_CONTEXT
from watermark.keys.record import DEFAULT_SCHEME
from watermark.schemes import scores_from_levels
from watermark.seeding import ContextPRF, is_account_channel, pair_levels, pair_values
from watermark.stats import gamma_log_sf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watermark.corpora.cutting import Cut
    from watermark.keys import KeyRecord

_MARGIN: Final = 1.000001  # of a quick look at the p-values, before the exact one


def refuse_foreign(record: KeyRecord) -> None:
    """Refuse a key that a scan cannot read.

    Raises:
        CorpusError: Its scheme is another than this project's own.
    """
    if not record.is_copula:
        raise CorpusError(
            f"key {record.key_id!a} is of scheme {record.scheme}, and a scan reads "
            f"{DEFAULT_SCHEME}; leave it out with --key-id, and use `watermark detect` for it"
        )


@dataclass(frozen=True, slots=True)
class DocumentScores:
    """Some documents under one key.

    Attributes:
        n_tested: Documents with at least `FEWEST_SHOWN` positions scored.
        found: Shape (k,): the documents whose p-value is at most the level, in order.
        found_scored: Shape (k,): positions scored in each.
        statistics: Shape (k,): sum of scores of each, in nats.
        log_pvalues: Shape (k,): natural log of each one's exact p-value.
    """

    n_tested: int
    found: NDArray[np.int64]
    found_scored: NDArray[np.int64]
    statistics: NDArray[np.float64]
    log_pvalues: NDArray[np.float64]


class Scorer:
    """One key and one form of the text, ready to score positions."""

    __slots__ = ("_prf", "layer", "record")

    def __init__(self, record: KeyRecord, form: str) -> None:
        """Derive the context key.

        Args:
            record: The key.
            form: The form of the text that it is held against.

        Raises:
            CorpusError: The key's scheme is another than this project's own.
        """
        refuse_foreign(record)
        self._prf = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16))
        self.record = record
        self.layer = Layer(form, record.unit, record.context_width)

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "<Scorer>"

    def scores(
        self, rows: NDArray[np.uint32]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        """Return the score of every row that the epoch test may score, and which those are.

        Args:
            rows: Shape (n, context_width + 1): context and token.

        Returns:
            Scores in nats, and a mask of shape (n,); None where every row is scored.
        """
        width, share_q16 = self.record.context_width, self.record.account_share_q16
        streams, routes = self._prf.evaluate(rows[:, :width])
        values = pair_values(streams, rows[:, width])
        if not share_q16:
            return scores_from_levels(pair_levels(values)), None
        is_epoch = ~is_account_channel(routes, share_q16)
        return scores_from_levels(pair_levels(values[is_epoch])), is_epoch

    def documents(self, cut: Cut, log_alpha: float) -> DocumentScores:
        """Test every document of a cut that has at least `FEWEST_SHOWN` positions to score.

        Which these are depends on the text and on route bits, which are independent of the scores.

        Args:
            cut: Positions of some documents.
            log_alpha: Natural log of the level up to which p-values are of interest.
        """
        scores, mask = self.scores(cut.rows)
        counts = cut.counts
        if mask is not None:
            documents = np.repeat(np.arange(len(counts)), counts)[mask]
            counts = np.bincount(documents, minlength=len(counts))
        filled = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[filled]
        sums = np.add.reduceat(scores, starts) if len(filled) else np.zeros(0)
        is_tested = counts[filled] >= FEWEST_SHOWN
        tested, sums = filled[is_tested], sums[is_tested]
        counts = counts[tested]
        near = special.gammaincc(counts, sums) <= math.exp(log_alpha) * _MARGIN
        picked = np.flatnonzero(near)
        logs = [gamma_log_sf(float(sums[i]), int(counts[i])) for i in picked]
        exact = np.array(logs, np.float64)
        kept = exact <= log_alpha
        picked = picked[kept]
        return DocumentScores(
            n_tested=len(tested),
            found=tested[picked],
            found_scored=counts[picked],
            statistics=sums[picked],
            log_pvalues=exact[kept],
        )
