r"""Read the Gumbel-max mark that SGLang makes, under one key or two.

Rule 1: the first token of each context of a reply is scored, up to the 4,096 contexts that the
engine marks in a request. Rule 2: two contexts of one hash share every draw, so a pair is told
from another by what goes into the keyed hash: 32 bits of context, 32 of token. Rule 3: under two
keys a coin of the context, keyed by both, says which one scores it, as it said which one marked.

The scores -log(1 - u), u the middle of one of 2^32 cells, are independent under the null, and
their sum over n distinct pairs is taken as Gamma(n, 1), the engine's own law: a score is, by
convexity, at most the mean of its cell's exponential scores, so that the sum is below a
Gamma(n, 1) in the increasing convex order, and E f(S) <= E f(Gamma) for every such f. The coin
looks at the context only, so it does not change the law.

Source: SGLang 0.5.23, `sglang/srt/sampling/watermarking/detector.py` and `core.py`; Appleby's
MurmurHash3; Aaronson 2022. The hash is not cryptographic; the null takes it as random.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from watermark.keys import LABEL_NATIVE_SGLANG, SUBKEY_BYTES
from watermark.schemes.reader import (
    GAMMA,
    NO_CONTEXTS,
    NullLaw,
    Pairs,
    Positions,
    all_windows,
    counted,
    sliding_positions,
)
from watermark.stats import gamma_log_sf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from watermark.keys import ForeignKey, KeyRecord, SecretKey

MAX_CONTEXTS: Final = 4096

_FIRST: Final = np.uint32(0xCC9E2D51)
_SCALE: Final = 2.0**32
_CHUNK: Final = 1 << 14


def native_key(secret: SecretKey) -> int:
    """Return the 64-bit key that an epoch has for this engine; in requests 16 hex digits."""
    label = LABEL_NATIVE_SGLANG
    return int.from_bytes(secret.subkey(label, SUBKEY_BYTES[label]), "big")


@dataclass(frozen=True, slots=True)
class SglangReader:
    """One engine key, or two.

    Attributes:
        context_width: Preceding tokens in a context.
        mixing_probability: Chance that the first of two keys marks a context.
    """

    context_width: int
    mixing_probability: float
    _keys: tuple[int, ...] = field(repr=False)

    @classmethod
    def of(cls, record: KeyRecord) -> SglangReader:
        """Return the reader of a key record."""
        keys = cast("ForeignKey", record.secret).integers
        return cls(record.context_width, float(record.parameter("mixing_probability")), keys)

    @classmethod
    def of_epoch(cls, record: KeyRecord) -> SglangReader:
        """Return the reader of an epoch key that marks through the engine, by its subkey."""
        return cls(record.context_width, 0.5, (native_key(record.secret),))

    def positions(self, ids: NDArray[np.uint32]) -> Positions:
        """Return every position that has a whole context before it in the reply."""
        return sliding_positions(ids, self.context_width)

    def contexts(self, ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the hash of every context that occurs in a text, its end included."""
        return _hash_contexts(all_windows(ids, self.context_width)).astype(np.uint64)

    def read(self, positions: Positions, *, excluded: NDArray[np.uint64] = NO_CONTEXTS) -> Pairs:
        """Return the pairs of one reply, each of its first 4,096 contexts once."""
        hashes = _hash_contexts(positions.contexts)
        # Packed to the top, so that a sort tells them apart.
        counts = counted(hashes.astype(np.uint64) << np.uint64(32), excluded << np.uint64(32))
        if counts is None:
            kept = slice(MAX_CONTEXTS)
            return self._pairs(hashes[kept], positions.tokens[kept])
        places = np.flatnonzero(counts)[:MAX_CONTEXTS]
        return self._pairs(hashes[places], positions.tokens[places])

    def evaluate(self, positions: Positions) -> Pairs:
        """Return the pair at every position."""
        return self._pairs(_hash_contexts(positions.contexts), positions.tokens)

    def statistic(self, pairs: Pairs) -> float:
        """Return the sum of -log(1 - u) in nats."""
        return float(-np.log1p(-(pairs.draws + 0.5) / _SCALE).sum())

    def log_pvalue(self, statistic: float, pairs: Pairs) -> float:
        """Return the log upper tail of Gamma(n, 1)."""
        return gamma_log_sf(statistic, len(pairs))

    def law(self, pairs: Pairs) -> NullLaw:  # noqa: ARG002 - the same for all
        """Return Gamma."""
        return GAMMA

    def decoy(self, rng: np.random.Generator) -> SglangReader:
        """Return the same scheme under random 64-bit keys."""
        keys = rng.integers(2**64, size=len(self._keys), dtype=np.uint64)
        return SglangReader(
            self.context_width, self.mixing_probability, tuple(int(key) for key in keys)
        )

    def _pairs(self, hashes: NDArray[np.uint32], tokens: NDArray[np.uint32]) -> Pairs:
        """Return what goes into the keyed hash, and what comes out, shape (n,)."""
        first, *second = [(key & 0xFFFFFFFF, key >> 32) for key in self._keys]
        draws = _murmur3((*first, hashes, tokens))
        if second:
            coins = _murmur3((*first, *second[0], hashes))
            is_second = coins >= np.uint32(int(self.mixing_probability * _SCALE))
            draws = np.where(is_second, _murmur3((*second[0], hashes, tokens)), draws)
        return Pairs(hashes.astype(np.uint64) << np.uint64(32) | tokens, draws)


def _hash_contexts(contexts: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the 32-bit hash of every context, shape (n,)."""
    return _murmur3([contexts[:, column] for column in range(contexts.shape[1])])


def _murmur3(words: Sequence[NDArray[np.uint32] | int]) -> NDArray[np.uint32]:
    """Return MurmurHash3 (x86, 32 bits, seed 0) over words, one of them at least an array."""
    n = max(len(word) for word in words if isinstance(word, np.ndarray))
    found = np.empty(n, np.uint32)
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        state = np.zeros(len(found[part]), np.uint32)
        for word in words:
            part_of = word[part] if isinstance(word, np.ndarray) else np.full(1, word, np.uint32)
            state = _absorb(state, part_of)
        found[part] = _finish(state ^ np.uint32(4 * len(words)))
    return found


def _absorb(state: NDArray[np.uint32], word: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the state after one word; all arithmetic modulo 2^32."""
    value = _rotated(word * _FIRST, 15) * np.uint32(0x1B873593)
    return _rotated(state ^ value, 13) * np.uint32(5) + np.uint32(0xE6546B64)


def _rotated(values: NDArray[np.uint32], by: int) -> NDArray[np.uint32]:
    return values << np.uint32(by) | values >> np.uint32(32 - by)


def _finish(state: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the finalizer."""
    state = state ^ state >> np.uint32(16)
    state = state * np.uint32(0x85EBCA6B)
    state ^= state >> np.uint32(13)
    state *= np.uint32(0xC2B2AE35)
    return state ^ state >> np.uint32(16)
