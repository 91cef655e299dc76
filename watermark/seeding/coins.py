"""Fair coins that depend on a key alone: bits of AES-128 in counter order.

Source: `watermark/spec/static-green-list.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.seeding.prf import BLOCK_WORDS, encrypt_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK_BITS: Final = 128


def coin_bits(key: bytes, count: int) -> NDArray[np.bool_]:
    """Return the first coins of a key, shape (count,).

    Coin i is bit i % 128 of the AES-128 block of the number i // 128, from the least significant
    bit of byte 0 on.

    Args:
        key: 16 bytes.
        count: How many, below 2^39.
    """
    blocks = np.zeros((-(-count // _BLOCK_BITS), BLOCK_WORDS), np.dtype("<u4"))
    blocks[:, 0] = np.arange(len(blocks))
    bits = np.unpackbits(encrypt_blocks(key, blocks).view(np.uint8).ravel(), bitorder="little")
    return bits[:count].view(np.bool_)
