"""vLLM's keyed function: Philox4x32-10 chained over a context, then over the token.

Bit-exact in integers, vectorized over positions; no torch.

Source: Salmon et al., SC 2011 (Philox); vLLM 0.33.0, `vllm/v1/watermarking/prfs/philox.py`,
version `philox4x32-10-v1`. The engine warns that it is no cryptographic function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK: Final = np.uint64(0xFFFFFFFF)
_SHIFT: Final = np.uint64(32)
_FACTORS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_ROUNDS: Final = 10
_BLOCK: Final = 4
_CONTEXT_DOMAIN: Final = 0x574D4358
_TOKEN_DOMAIN: Final = 0x574D544B
_CHUNK: Final = 1 << 13  # a dozen arrays of this length stay in a core's cache

Words = tuple[
    "NDArray[np.uint64]", "NDArray[np.uint64]", "NDArray[np.uint64]", "NDArray[np.uint64]"
]


class PhiloxPRF:
    """One 64-bit key.

    Args:
        key: 0..2^64 - 1.
    """

    __slots__ = ("_key",)

    def __init__(self, key: int) -> None:
        self._key = (np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32))

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "<PhiloxPRF>"

    def states(self, contexts: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the 128-bit state of every context, as four 32-bit words.

        Args:
            contexts: Shape (n, context_width); padding is 2^32 - 1.

        Returns:
            Shape (4, n).
        """
        states = np.empty((4, len(contexts)), np.uint64)
        for start in range(0, len(contexts), _CHUNK):
            chunk = contexts[start : start + _CHUNK]
            states[:, start : start + len(chunk)] = self._chain(chunk)
        return states

    def outputs(self, states: NDArray[np.uint64], tokens: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return the 32 bits of every (context, token).

        Args:
            states: Of the contexts, shape (4, n), or (4, 1) for one context.
            tokens: Shape (n,).
        """
        found = np.empty(len(tokens), np.uint32)
        for start in range(0, len(tokens), _CHUNK):
            part = slice(start, start + _CHUNK)
            own = states if states.shape[1] == 1 else states[:, part]
            found[part] = self._finish(own, tokens[part])
        return found

    def _chain(self, contexts: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Absorb a context, four words a block."""
        n, width = contexts.shape
        states = np.zeros((4, n), np.uint64)
        states[0], states[1] = _CONTEXT_DOMAIN, width
        for offset in range(0, width, _BLOCK):
            for word in range(_BLOCK):
                column = offset + word
                if column < width:
                    states[word] ^= contexts[:, column]
                else:
                    states[word] ^= np.uint64(0xFFFFFFFF - word)
            key = (np.full(n, self._key[0] ^ np.uint64(offset)), np.full(n, self._key[1]))
            states[:] = _philox((states[0], states[1], states[2], states[3]), key)
        return states

    def _finish(self, states: NDArray[np.uint64], tokens: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the token's own word of the block that it shares with three others."""
        words = tokens.astype(np.uint64)
        own = np.broadcast_to(states, (4, len(words)))
        key = (
            self._key[0] ^ own[3],
            np.full(len(words), self._key[1] ^ np.uint64(_TOKEN_DOMAIN)),
        )
        block = _philox((words >> np.uint64(2), own[0], own[1], own[2]), key)
        return np.choose((words & np.uint64(3)).astype(np.intp), block)


def _philox(counter: Words, key: tuple[NDArray[np.uint64], NDArray[np.uint64]]) -> Words:
    """Return ten rounds of Philox4x32 on every column."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = _FACTORS[0] * c0, _FACTORS[1] * c2
        c0 = (second >> _SHIFT) ^ c1 ^ k0
        c2 = (first >> _SHIFT) ^ c3 ^ k1
        c1, c3 = second & _MASK, first & _MASK
        k0 = (k0 + np.uint64(_WEYL[0])) & _MASK
        k1 = (k1 + np.uint64(_WEYL[1])) & _MASK
    return c0, c1, c2, c3
