"""A stream of documents under one key, looked at after every one.

A p-value is for one look. Who watches a mailbox or a feed looks again and again, and stops when
it pays: that needs an e-process (`watermark.stats.evalues`). A document adds what is new in it:
pairs that an earlier one held are not bet on again, so that a template sent a thousand times
counts once.

Rule 1: what is bet is fixed before a document is scored; nothing is bet by its own score.
Rule 2: one number leaves for each document, and the state holds no score. It moves on only when 16
or more pairs were bet on since it last did: of two numbers with fewer between them, the difference
would tell single scores. To look at an e-process less often than it moves leaves it valid at any
moment: what is shown is a value that it had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from watermark.detection.detector import Detector
from watermark.detection.result import FEWEST_SHOWN, html_table
from watermark.errors import SchemeParameterError
from watermark.schemes import NO_CONTEXTS, scores_from_levels
from watermark.seeding import pair_levels
from watermark.stats import LN_10, BettingEvalue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from watermark.keys import KeyRecord
    from watermark.text import Unit

    TokenIds = Sequence[int] | NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StreamResult:
    """What a stream says after one more document.

    Attributes:
        log_evalue: Natural log of the e-value after `n_scored` pairs.
        log_pvalue: Natural log of the anytime-valid p-value: 1 over the largest e-value until then.
        n_tokens: Units in this document.
        n_new: Pairs of it that no earlier one held, and that were bet on.
        n_scored: Pairs that the e-value counts: all that were bet on, but for the last where these
            are fewer than `FEWEST_SHOWN`.
        key_id: The key tested.
    """

    log_evalue: float
    log_pvalue: float
    n_tokens: int
    n_new: int
    n_scored: int
    key_id: str

    def __repr__(self) -> str:
        """Show the answer in one line."""
        return (
            f"<StreamResult key={self.key_id!r} e=10^{self.log_evalue / LN_10:z.2f} anytime "
            f"p=10^{self.log_pvalue / LN_10:z.2f} new={self.n_new} scored={self.n_scored}>"
        )

    def _repr_html_(self) -> str:
        """Return the answer as a small table, for notebooks."""
        cells = (
            *(self.key_id, str(self.n_tokens), str(self.n_new), str(self.n_scored)),
            *(f"{self.log_evalue / LN_10:z.2f}", f"{self.log_pvalue / LN_10:z.2f}"),
        )
        return html_table(("key", "units", "new", "scored", "log10 e", "log10 p"), [cells])


class DetectionStream:
    """One key held against documents as they come; any moment is a moment to stop.

    P(the e-value ever reaches 1 / alpha) <= alpha where the key is independent of the texts: the
    pairs that are new have independent scores whatever came before.
    """

    __slots__ = ("_bets", "_detector", "_seen", "_shown")

    def __init__(
        self, record: KeyRecord, unit: Unit | None = None, *, bets: BettingEvalue | None = None
    ) -> None:
        """Start with a capital of 1.

        Args:
            record: The key, of a scheme whose scores are Exp(1) one by one.
            unit: How to cut text; None where only unit ids will be given.
            bets: Stakes; None for the usual grid.

        Raises:
            SchemeParameterError: The key's scheme has other scores.
            UnitMismatchError: The unit is not the one that the key was made for.
        """
        if not record.is_copula:
            raise SchemeParameterError(
                f"key {record.key_id!a} is of scheme {record.scheme!a}, whose scores are not bet "
                "on one by one; use Detector.detect_each for it"
            )
        self._detector = Detector(record, unit)
        self._bets = self._shown = BettingEvalue() if bets is None else bets
        self._seen = NO_CONTEXTS

    def __repr__(self) -> str:
        """Show which key, and how much was bet on."""
        return (
            f"<DetectionStream key={self._detector.record.key_id!r} {self._bets.n_scored} scored>"
        )

    def observe(
        self, text: str | TokenIds, *, exclude: Iterable[str | TokenIds] = ()
    ) -> StreamResult:
        """Bet on what is new in one more document; a short or empty one changes nothing.

        Args:
            text: Characters, or unit ids.
            exclude: Texts that the writer had in view; see `Detector.detect`.

        Raises:
            TextEncodingError: The text holds half a surrogate pair.
            TokenIdError: An id is out of range.
            UnitMismatchError: Characters were given and no unit.
        """
        detector = self._detector
        reader, ids = detector.reader, detector.ids(text)
        positions = reader.positions(ids)
        pairs = reader.read(positions, excluded=detector.excluded(exclude)).distinct()
        is_new = ~np.isin(pairs.identities, self._seen)
        new = pairs.identities[is_new]
        self._seen = np.union1d(self._seen, new)
        self._bets = self._bets.update(scores_from_levels(pair_levels(pairs.draws[is_new])))
        if self._bets.n_scored - self._shown.n_scored >= FEWEST_SHOWN:
            self._shown = self._bets
        return StreamResult(
            log_evalue=self._shown.log_evalue,
            log_pvalue=self._shown.log_pvalue,
            n_tokens=len(ids),
            n_new=len(new),
            n_scored=self._shown.n_scored,
            key_id=detector.record.key_id,
        )
