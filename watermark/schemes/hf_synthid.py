"""Read the tournament mark of transformers' SynthID: `SynthIDTextWatermarkingConfig`.

A layer's g-value of an n-gram is a bit of a fixed table, at an index that a linear congruence of
context, token and the layer's key gives. The statistic is the number of ones over all layers of
the distinct n-grams of a family, each context of a reply counted once.

Why p is not binomial: only the low bits of keys and tokens enter, 16 with the default table, so
that tokens 65,536 apart share all g-values, a long text has n-grams that share all of them, and
the table has more zeros than ones. But that makes the key space small enough to be gone through
whole: all n-grams tested come down to how often each index base occurs, one discrete Fourier
transform gives the statistic of a layer under each of its 65,536 keys, and the sum over the
layers, whose keys are independent, follows exactly. So p is the share of the whole key space that
does as well as the real key, every key a decoy; it is valid whatever the text, if the keys were
drawn at random without regard to it, and never below size^-depth. It says nothing of keys
that were no random choice, such as the lists that are published as examples.

Source: transformers 5.24, `generation/logits_process.py`
(`SynthIDTextWatermarkLogitsProcessor`); Dathathri et al., Nature 634 (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from scipy import fft

from watermark.schemes.mersenne import Twister
from watermark.schemes.reader import (
    NO_CONTEXTS,
    NullLaw,
    Pairs,
    Positions,
    all_windows,
    counted,
    sliding_positions,
    text_identities,
)
from watermark.seeding import pair_values
from watermark.stats import integer_sum_log_sf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watermark.keys import ForeignKey, KeyRecord

_FACTOR: Final = np.uint64(6364136223846793005)
_ONE: Final = np.uint64(1)


@dataclass(frozen=True, slots=True)
class SynthidReader:
    """One list of layer keys.

    Attributes:
        context_width: Preceding tokens in a context: the engine's `ngram_len` less one.
        table_size: Length of the table of bits, a power of two.
        table_seed: The table's seed.
    """

    context_width: int
    table_size: int
    table_seed: int
    _keys: tuple[int, ...] = field(repr=False)

    @classmethod
    def of(cls, record: KeyRecord) -> SynthidReader:
        """Return the reader of a key record."""
        return cls(
            record.context_width,
            int(record.parameter("sampling_table_size")),
            int(record.parameter("sampling_table_seed")),
            cast("ForeignKey", record.secret).integers,
        )

    def positions(self, ids: NDArray[np.uint32]) -> Positions:
        """Return every position that has a whole context before it in the reply."""
        return sliding_positions(ids, self.context_width)

    def contexts(self, ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return an identity of every context that occurs in a text, its end included."""
        return text_identities(all_windows(ids, self.context_width))

    def read(self, positions: Positions, *, excluded: NDArray[np.uint64] = NO_CONTEXTS) -> Pairs:
        """Return the n-grams of one reply, each context once."""
        counts = counted(text_identities(positions.contexts), excluded)
        if counts is None:
            return self.evaluate(positions)
        return self.evaluate(Positions(positions.contexts[counts], positions.tokens[counts]))

    def evaluate(self, positions: Positions) -> Pairs:
        """Return the index base of the n-gram at every position."""
        base = np.ones(len(positions), np.uint64)
        for column in range(self.context_width):
            base = _step(base, positions.contexts[:, column])
        base = _step(base, positions.tokens)
        identities = pair_values(text_identities(positions.contexts), positions.tokens)
        return Pairs(identities, base & np.uint64(self.table_size - 1))

    def statistic(self, pairs: Pairs) -> float:
        """Return the number of ones over all layers."""
        table, mask = self._table(), np.uint64(self.table_size - 1)
        layers = (_step(pairs.draws, np.uint64(key)) & mask for key in self._keys)
        return float(sum(int(table[layer].sum()) for layer in layers))

    def log_pvalue(self, statistic: float, pairs: Pairs) -> float:
        """Return the log share of the key space that gives as many ones."""
        if len(pairs) == 0:
            return 0.0
        ones = self._ones_under_every_key(pairs.draws)
        return integer_sum_log_sf(round(statistic), np.bincount(ones), len(self._keys))

    def law(self, pairs: Pairs) -> NullLaw:  # noqa: ARG002 - the same for all
        """Return that the key space is enumerated, and the floor that its size sets."""
        depth, share = len(self._keys), float(self._table().mean())
        return NullLaw(
            "key space",
            score_mean=depth * share,
            score_sd=math.sqrt(depth * share * (1 - share)),
            log_pvalue_floor=-depth * math.log(self.table_size),
        )

    def decoy(self, rng: np.random.Generator) -> SynthidReader:
        """Return the same scheme under random layer keys."""
        keys = rng.integers(self.table_size, size=len(self._keys))
        return SynthidReader(
            self.context_width, self.table_size, self.table_seed, tuple(keys.tolist())
        )

    def _table(self) -> NDArray[np.int64]:
        """Return the bits, as torch draws them."""
        words = Twister().words(self.table_seed, self.table_size)
        return (words & _ONE).astype(np.int64)

    def _ones_under_every_key(self, bases: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return, for each key of one layer, how many n-grams have a one there."""
        size = self.table_size
        occurs = np.bincount(bases.astype(np.int64), minlength=size).astype(np.float64)
        last = _step(np.arange(size, dtype=np.uint64), np.uint64(0)) & np.uint64(size - 1)
        bits = self._table()[last].astype(np.float64)
        # ones(key) = sum over bases of occurs(base) bits(base + key): a cyclic correlation.
        spectrum = np.conj(fft.rfft(occurs)) * fft.rfft(bits)
        ones: NDArray[np.int64] = np.rint(fft.irfft(spectrum, size)).astype(np.int64)
        return ones


def _step(state: NDArray[np.uint64], word: NDArray[np.uint32] | np.uint64) -> NDArray[np.uint64]:
    """Return the next state of the congruence, modulo 2^64."""
    return (state + word) * _FACTOR + _ONE
