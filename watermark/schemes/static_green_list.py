"""A static green list: the one mark that an upstream can make which offers `logit_bias` alone.

A run of the vocabulary is cut into pairs of neighboring ids. One of each pair, by a keyed coin, is
*green*, the other *red*; green tokens get a bias (`delta`, in nats), always, whatever came before.
Vocabularies are sorted by frequency or by order of merging, so the two of a pair are about as
common, which is what keeps the test from measuring the vocabulary.

What it costs, beside every other scheme here: the distribution of replies changes, under every
key and for all of them alike, and whoever counts words in a few hundred replies has the list. So
it proves nothing to anybody who may suspect that the list was read off, or a text written to fit
it: it says "probably", to its owner, and is no evidence (`KeyFields.is_evidence`).

The statistic is the sum over green tokens of log(1 + c), c the number of different contexts in
which the token stands in what is tested: that damps the few tokens which make up most of a text,
and copies count once.

Why p comes from decoys: a token counts whole or not at all, so scores are not independent, and no
closed form is exact. But given the text the statistic depends on the key through its coins only,
and the coins of B decoys, drawn fair as a random key's are, are exchangeable with those of a key
that was drawn without regard to the text: p = (1 + #{T_b >= T}) / (B + 1) is valid whatever the
text. It is never below 1 / (B + 1), its stated floor. Over *texts* under one fixed key it says
less than elsewhere: texts of one author share their words, and so their luck.

Source: `watermark/spec/static-green-list.md`; Kirchenbauer et al., ICML 2023 (green list, delta);
Zhao et al. 2023, 2306.17439 (one list for every position).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.keys import LABEL_STATIC_GREEN_LIST, SUBKEY_BYTES
from watermark.schemes.reader import (
    NO_CONTEXTS,
    NullLaw,
    Pairs,
    Positions,
    all_windows,
    distinct_outside,
    sliding_positions,
    text_decoys,
    text_identities,
)
from watermark.seeding import coin_bits, pair_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watermark.keys import KeyRecord

_DECOYS: Final = 9_999
_BLOCK: Final = 512  # decoys held against a text at a time
_WORD_BITS: Final = 64
_SLACK: Final = 1e-9


def green_list(record: KeyRecord) -> NDArray[np.uint32]:
    """Return the green ids of a key, in order, shape (list_size,).

    Args:
        record: A key of the scheme `static-green-list`.

    Raises:
        KeysError: The secret cannot give the list's subkey.
    """
    reader = StaticListReader.of(record)
    pairs = np.arange(reader.list_size, dtype=np.uint32)
    coins = coin_bits(_subkey(record), reader.list_size)
    return np.uint32(reader.first_id) + np.uint32(2) * pairs + coins.astype(np.uint32)


def _subkey(record: KeyRecord) -> bytes:
    label = LABEL_STATIC_GREEN_LIST
    return record.secret.subkey(label, SUBKEY_BYTES[label])


@dataclass(frozen=True, slots=True)
class StaticListReader:
    """One key's list.

    Attributes:
        context_width: Units before a position by which its repeats are told.
        first_id: The first id of the first pair.
        list_size: Number of pairs, and so of green ids.
    """

    context_width: int
    first_id: int
    list_size: int
    _key: bytes = field(repr=False)

    @classmethod
    def of(cls, record: KeyRecord) -> StaticListReader:
        """Return the reader of a key record."""
        first_id, list_size = (int(record.parameter(name)) for name in ("first_id", "list_size"))
        return cls(record.context_width, first_id, list_size, _subkey(record))

    def positions(self, ids: NDArray[np.uint32]) -> Positions:
        """Return every position of a paired token that has a whole context before it."""
        every = sliding_positions(ids, self.context_width)
        place = every.tokens.astype(np.int64) - self.first_id
        is_paired = (place >= 0) & (place < 2 * self.list_size)
        return Positions(every.contexts[is_paired], every.tokens[is_paired])

    def contexts(self, ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return an identity of every context that occurs in a text, its end included."""
        return text_identities(all_windows(ids, self.context_width))

    def read(self, positions: Positions, *, excluded: NDArray[np.uint64] = NO_CONTEXTS) -> Pairs:
        """Return the distinct pairs of one reply."""
        return distinct_outside(self.evaluate(positions), positions, excluded)

    def evaluate(self, positions: Positions) -> Pairs:
        """Return the token at every position, shape (n,): its pair's coin is its draw."""
        identities = pair_values(text_identities(positions.contexts), positions.tokens)
        return Pairs(identities, positions.tokens)

    def statistic(self, pairs: Pairs) -> float:
        """Return the sum over green tokens of log(1 + number of contexts)."""
        return self._green_sum(self._key, self._scores(pairs))

    def log_pvalue(self, statistic: float, pairs: Pairs) -> float:
        """Return the log share of keys, this one among them, whose statistic is as large."""
        if len(pairs) == 0:
            return 0.0
        scores = self._scores(pairs)
        gaps = scores[:, 1] - scores[:, 0]
        gaps = gaps[gaps != 0]
        # Sums of the same terms in another order may differ in their last digits: a tie reaches.
        excess = statistic - float(scores[:, 0].sum())
        least = excess - _SLACK * (1 + abs(excess))
        words = text_decoys(pairs, "static-green-list", _DECOYS * -(-len(gaps) // _WORD_BITS))
        lists = words.view(np.uint8).reshape(_DECOYS, -1)
        reached = 0
        for start in range(0, _DECOYS, _BLOCK):
            coins = np.unpackbits(lists[start : start + _BLOCK], axis=1, count=len(gaps))
            reached += int((coins @ gaps >= least).sum())
        return math.log((1 + reached) / (_DECOYS + 1))

    def law(self, pairs: Pairs) -> NullLaw:
        """Return the number of decoys, with the mean and deviation that fair coins give."""
        n = max(1, len(pairs))
        scores = self._scores(pairs)
        gap = scores[:, 0] - scores[:, 1]
        return NullLaw(
            "decoys",
            score_mean=float(scores.sum()) / 2 / n,
            score_sd=math.sqrt(float(gap @ gap) / 4 / n) or 1.0,
            log_pvalue_floor=-math.log(_DECOYS + 1),
        )

    def decoy(self, rng: np.random.Generator) -> StaticListReader:
        """Return the same scheme under a random key of 128 bits."""
        key = rng.bytes(SUBKEY_BYTES[LABEL_STATIC_GREEN_LIST])
        return StaticListReader(self.context_width, self.first_id, self.list_size, key)

    def _scores(self, pairs: Pairs) -> NDArray[np.float64]:
        """Return what the two tokens of every pair are worth, shape (list_size, 2)."""
        places = pairs.draws.astype(np.int64) - self.first_id
        counts = np.bincount(places, minlength=2 * self.list_size)
        return np.log1p(counts.astype(np.float64)).reshape(-1, 2)

    def _green_sum(self, key: bytes, scores: NDArray[np.float64]) -> float:
        coins = coin_bits(key, self.list_size)
        return float(np.where(coins, scores[:, 1], scores[:, 0]).sum())
