"""Many keys held against the same pairs: scores under every key, or only their sums.

Decoy keys, thousands of epochs and the maximum over windows all ask one question: what would this
statistic have been under another key? The pairs depend on the text alone, so they are cut once
and each key costs one AES block and a dozen vector operations a pair.

Rule 1: the pairs given are distinct; which they are depends on the text only.
Rule 2: a position of a key's account channel scores 0 under that key and is not counted.
Rule 3: rows of scores are for use inside the detector; while a key is secret none leaves it.

Sums are taken as `score_sum` takes them, block by block and factor by factor, so that a key gets
the same bits here and alone.

Source: `watermark/spec/seeding.md` for the bits; SplitMix64 as in `watermark.seeding`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from watermark.errors import SchemeParameterError
from watermark.schemes import FACTORS, SUM_BLOCK
from watermark.seeding import (
    BEFORE_HALF_LEVEL,
    COMPLEMENT_AS_FLOAT,
    MAX_CONTEXT_WIDTH,
    PADDING,
    TOKEN_STEP,
    is_account_channel,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.ciphers import CipherContext
    from numpy.typing import NDArray

KEY_BYTES: Final = 16
_DECOY_LABEL: Final = b"output-watermark/v1/decoys/keys/"
BLOCK_SCORES: Final = 1 << 20  # 8 MiB of scores a block of rows
_GROUP_KEYS: Final = 1 << 10  # ciphers kept alive at once: about 1 MiB
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_FACTOR_1, _FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_TO_LEVEL: Final = np.uint64(12)


@dataclass(frozen=True, slots=True)
class KeySums:
    """Score sums under many keys.

    Attributes:
        statistics: Sum of the scores, in nats, shape (k,).
        n_scored: Pairs scored, shape (k,); fewer than all only where an account share is set.
    """

    statistics: NDArray[np.float64]
    n_scored: NDArray[np.int64]


def decoy_context_keys(n: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return n random context keys, shape (n, 16).

    A `context` subkey is the output of HKDF under a random secret, so keys drawn uniformly have
    the law that a real key has before its text is known.
    """
    return rng.integers(0, 256, (n, KEY_BYTES), dtype=np.uint8)


def pairs_generator(*parts: NDArray[np.uint32]) -> np.random.Generator:
    """Return the generator of decoy keys that belongs to some contexts and tokens.

    Whoever recomputes a test draws the same decoys, and nobody picks those that suit him.
    """
    digest = hashlib.shake_256(_DECOY_LABEL)
    for part in parts:
        digest.update(part.size.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(part, "<u4").tobytes())
    seed = int.from_bytes(digest.digest(32), "little")
    return np.random.Generator(np.random.PCG64DXSM(seed))


def key_statistics(
    context_keys: NDArray[np.uint8],
    contexts: NDArray[np.uint32],
    tokens: NDArray[np.uint32],
    *,
    account_share_q16: int = 0,
) -> NDArray[np.float64]:
    """Return the sum of -log(1 - u) over all pairs under every key, in nats, shape (k,).

    Takes the arguments of `key_sums`, and drops the counts.
    """
    sums = key_sums(context_keys, contexts, tokens, account_share_q16=account_share_q16)
    return sums.statistics


def key_sums(
    context_keys: NDArray[np.uint8],
    contexts: NDArray[np.uint32],
    tokens: NDArray[np.uint32],
    *,
    account_share_q16: int = 0,
) -> KeySums:
    """Return score sums and counts under every key, without keeping scores.

    Args:
        context_keys: `context` subkeys, shape (k, 16).
        contexts: Distinct contexts of the pairs, shape (n, context_width), ids below 2^32 - 1.
        tokens: The token after each, shape (n,).
        account_share_q16: The keys' account share, 0..65536.

    Raises:
        SchemeParameterError: The shapes do not fit each other.
    """
    _check(context_keys, contexts, tokens)
    statistics = np.zeros(len(context_keys))
    n_scored = np.zeros(len(context_keys), np.int64)
    for first in range(0, len(context_keys), _GROUP_KEYS):
        ciphers = [_cipher(key) for key in context_keys[first : first + _GROUP_KEYS]]
        for start in range(0, len(tokens), SUM_BLOCK):
            stop = start + SUM_BLOCK
            kernel = _Kernel(contexts[start:stop], tokens[start:stop], account_share_q16)
            for i in range(0, len(ciphers), kernel.rows):
                n_loaded = kernel.load(ciphers[i : i + kernel.rows])
                rows = slice(first + i, first + i + n_loaded)
                statistics[rows] += kernel.score_sums(n_loaded)
                n_scored[rows] += kernel.n_scored[:n_loaded]
    return KeySums(statistics, n_scored)


def key_score_blocks(
    context_keys: NDArray[np.uint8],
    contexts: NDArray[np.uint32],
    tokens: NDArray[np.uint32],
    *,
    account_share_q16: int = 0,
    block_scores: int = BLOCK_SCORES,
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the scores of all pairs under blocks of keys.

    Args:
        context_keys: `context` subkeys, shape (k, 16).
        contexts: Distinct contexts of the pairs, shape (n, context_width), ids below 2^32 - 1.
        tokens: The token after each, shape (n,).
        account_share_q16: The keys' account share, 0..65536; its positions score 0.
        block_scores: Scores a block may hold; a block has one key at least.

    Yields:
        The rows of `context_keys` that a block covers, and its scores, shape (rows, n). The array
        is written anew for the next block: keep a copy, not the array.

    Raises:
        SchemeParameterError: The shapes do not fit each other.
    """
    _check(context_keys, contexts, tokens)
    n = len(tokens)
    n_rows = min(len(context_keys), max(1, block_scores // max(n, 1)))
    scores = np.empty((n_rows, n))
    for first in range(0, len(context_keys), max(n_rows, 1)):
        rows = slice(first, min(first + n_rows, len(context_keys)))
        block = scores[: rows.stop - rows.start]
        ciphers = [_cipher(key) for key in context_keys[rows]]
        for start in range(0, n, SUM_BLOCK):
            stop = start + SUM_BLOCK
            kernel = _Kernel(contexts[start:stop], tokens[start:stop], account_share_q16)
            for i in range(0, len(ciphers), kernel.rows):
                n_loaded = kernel.load(ciphers[i : i + kernel.rows])
                np.log(kernel.complements(n_loaded), out=block[i : i + n_loaded, start:stop])
        np.negative(block, out=block)
        yield rows, block


class _Kernel:
    """Up to `SUM_BLOCK` pairs, laid out for AES, and room to score them under several keys.

    Few pairs leave room for many keys, so that what a vector operation costs to start is shared
    among them. Pairs are padded to a multiple of `FACTORS` with complements of 1, which add 0.
    """

    __slots__ = ("_blocks", "_n", "_room", "_share", "_steps", "_words", "_work", "_z", "n_scored")

    def __init__(
        self, contexts: NDArray[np.uint32], tokens: NDArray[np.uint32], account_share_q16: int
    ) -> None:
        n, width = contexts.shape
        padded = -(-n // FACTORS) * FACTORS
        rows = SUM_BLOCK // padded
        blocks = np.full((padded, MAX_CONTEXT_WIDTH), PADDING, np.dtype("<u4"))
        blocks[:n, :width] = contexts
        self._n = n
        self._blocks = blocks.data.cast("B")
        # cryptography asks for room for one block less a byte beyond the input.
        room = np.empty(rows * padded * KEY_BYTES + KEY_BYTES - 1, np.uint8)
        self._room = room.data
        self._words = room[: -KEY_BYTES + 1].view(np.dtype("<u8")).reshape(rows, padded, 2)
        self._steps = np.zeros(padded, np.uint64)
        np.multiply(tokens, TOKEN_STEP, out=self._steps[:n])
        self._share = account_share_q16
        self._work = np.empty((rows, padded), np.uint64)
        self._z = np.empty((rows, padded), np.uint64)
        self.n_scored: NDArray[np.int64] = np.full(rows, n, np.int64)

    @property
    def rows(self) -> int:
        """Keys that can be loaded at once, >= 1."""
        return len(self._z)

    def complements(self, n_loaded: int) -> NDArray[np.float64]:
        """Return 1 - u of every pair under the loaded keys, 1 where it is not scored."""
        return self._z[:n_loaded, : self._n].view(np.float64)

    def load(self, ciphers: Sequence[CipherContext]) -> int:
        """Fill the complements under up to `rows` keys; return how many were loaded.

        As `pair_values` and `pair_complements` have it, in place.
        """
        size, rows = len(self._blocks), len(ciphers)
        for row, cipher in enumerate(ciphers):
            cipher.update_into(self._blocks, self._room[row * size :])
        z, work = self._z[:rows], self._work[:rows]
        np.add(self._words[:rows, :, 0], self._steps, out=z)
        np.right_shift(z, _SHIFT_1, out=work)
        np.bitwise_xor(z, work, out=z)
        np.multiply(z, _FACTOR_1, out=z)
        np.right_shift(z, _SHIFT_2, out=work)
        np.bitwise_xor(z, work, out=z)
        np.multiply(z, _FACTOR_2, out=z)
        np.right_shift(z, _SHIFT_3, out=work)
        np.bitwise_xor(z, work, out=z)
        np.right_shift(z, _TO_LEVEL, out=z)
        np.bitwise_xor(z, COMPLEMENT_AS_FLOAT, out=z)
        f = z.view(np.float64)
        np.subtract(f, BEFORE_HALF_LEVEL, out=f)
        f[:, self._n :] = 1.0
        if self._share:
            is_account = is_account_channel(self._words[:rows, : self._n, 1], self._share)
            f[:, : self._n][is_account] = 1.0
            self.n_scored[:rows] = self._n - np.count_nonzero(is_account, axis=1)
        return rows

    def score_sums(self, n_loaded: int) -> NDArray[np.float64]:
        """Return the sum of -log of the complements under each loaded key."""
        f = self._z[:n_loaded].view(np.float64).reshape(n_loaded, FACTORS, -1)
        sums: NDArray[np.float64] = np.log(np.multiply.reduce(f, axis=1)).sum(axis=1)
        return np.negative(sums, out=sums)


def _cipher(key: NDArray[np.uint8]) -> CipherContext:
    # ECB is the point here: every block is one evaluation of the permutation.
    return Cipher(algorithms.AES(key.tobytes()), modes.ECB()).encryptor()  # noqa: S305


def _check(
    context_keys: NDArray[Any], contexts: NDArray[np.uint32], tokens: NDArray[np.uint32]
) -> None:
    """Refuse what would be read wrongly."""
    if context_keys.ndim != 2 or context_keys.shape[1] != KEY_BYTES:  # noqa: PLR2004 - rows
        raise SchemeParameterError(
            f"context keys have shape (k, {KEY_BYTES}), found {context_keys.shape}"
        )
    if contexts.ndim != 2 or len(contexts) != len(tokens):  # noqa: PLR2004 - rows
        raise SchemeParameterError(
            f"there must be one token a context, found {contexts.shape} and {tokens.shape}"
        )
