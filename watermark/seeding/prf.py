"""The keyed function from contexts to 128 pseudorandom bits.

One AES-128 block per context, no chaining: ECB over many distinct blocks is a pseudorandom
permutation evaluated many times, not encryption of a message, and runs at the speed of the
processor's AES instructions (3 to 6 ns a position).

Source: `watermark/spec/seeding.md`, Context to stream and route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from watermark.seeding.context import MAX_CONTEXT_WIDTH, PADDING

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_WORDS: Final = MAX_CONTEXT_WIDTH
BLOCK_BYTES: Final = 16
CHUNK_POSITIONS: Final = 1 << 16  # a mebibyte of blocks; few steps, so that threads seldom meet


class BlockCipher:
    """AES-128 of many blocks, again and again: one key schedule and one output for all calls."""

    __slots__ = ("_encryptor", "_out")

    def __init__(self, key: bytes) -> None:
        """Expand a key of 16 bytes."""
        # ECB is the point here: every block is one evaluation of the permutation.
        self._encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
        self._out = np.empty(0, np.uint8)

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "<BlockCipher>"

    def encrypt(self, blocks: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return AES-128 of every block; the next call writes over it.

        Args:
            blocks: Shape (n, 4), little-endian uint32, C order.

        Returns:
            Shape (n, 2), little-endian uint64.
        """
        if not len(blocks):  # a memoryview of nothing cannot be cast
            return np.zeros((0, 2), np.dtype("<u8"))
        # cryptography asks for room for one block less a byte beyond the input.
        size = len(blocks) * BLOCK_BYTES + BLOCK_BYTES - 1
        if len(self._out) < size:
            self._out = np.empty(size, np.uint8)
        written = self._encryptor.update_into(blocks.data.cast("B"), self._out.data)
        return self._out[:written].view(np.dtype("<u8")).reshape(-1, 2)


def encrypt_blocks(key: bytes, blocks: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return AES-128 of every block.

    Args:
        key: 16 bytes.
        blocks: Shape (n, 4), little-endian uint32, C order.

    Returns:
        Shape (n, 2), little-endian uint64.
    """
    return BlockCipher(key).encrypt(blocks)


class ContextPRF:
    """Contexts to (stream, route), for one context key.

    The `context` subkey alone is enough to detect the epoch channel, so a disclosed subkey makes
    one of these and nothing else.
    """

    __slots__ = ("_key",)

    def __init__(self, context_key: bytes) -> None:
        """Keep a 16-byte `context` subkey."""
        self._key = context_key

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "<ContextPRF>"

    def evaluate(
        self, contexts: NDArray[np.uint32]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the stream and the route of every context.

        Args:
            contexts: Shape (n, context_width), uint32 ids below 2^32 - 1.

        Returns:
            Two uint64 arrays of shape (n,): stream (bytes 0..7 of the AES output), route (8..15).
        """
        n = len(contexts)
        blocks = np.full((min(n, CHUNK_POSITIONS), BLOCK_WORDS), PADDING, np.dtype("<u4"))
        if n <= CHUNK_POSITIONS:  # views of the one output: a short text pays no copy
            words = encrypt_blocks(self._key, _filled(blocks, contexts))
            return words[:, 0], words[:, 1]
        streams = np.empty(n, np.dtype("<u8"))
        routes = np.empty(n, np.dtype("<u8"))
        cipher = BlockCipher(self._key)
        for start in range(0, n, CHUNK_POSITIONS):
            chunk = contexts[start : start + CHUNK_POSITIONS]
            words = cipher.encrypt(_filled(blocks[: len(chunk)], chunk))
            streams[start : start + len(chunk)] = words[:, 0]
            routes[start : start + len(chunk)] = words[:, 1]
        return streams, routes


def _filled(blocks: NDArray[np.uint32], contexts: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return padded blocks with contexts before the padding."""
    for word in range(contexts.shape[1]):  # columns are contiguous reads of a sliding window
        blocks[:, word] = contexts[:, word]
    return blocks
