"""An interpolated n-gram model: next-token distributions in tens of microseconds.

Source: Witten & Bell 1991, method C, interpolated (Chen & Goodman 1999, section 2.6), down to a
uniform distribution, so that every token has positive probability. Estimation is in
`ngram_training`.

Rules:

1. A context never reaches back over an end of text: a document starts afresh.
2. Tokens are packed into one integer, 12 bits each, the newest lowest.
3. If a context was never seen, no longer one was: the walk up the orders stops there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOKEN_BITS: Final = 12
"""The built-in vocabulary has 4,096 tokens."""

MAX_ORDER: Final = 64 // TOKEN_BITS
"""The longest n-gram that fits one unsigned 64-bit integer: 5 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramLevel:
    """What one order adds: for each seen context its continuations and what it leaves below.

    Attributes:
        contexts: Packed contexts, ascending, shape (c,).
        starts: Where each context's continuations begin, shape (c + 1,).
        left: Probability mass left to the next lower order, shape (c,).
        tokens: Continuations, grouped by context, shape (n,).
        masses: Probabilities of the continuations at this order, shape (n,).
    """

    contexts: NDArray[np.uint64]
    starts: NDArray[np.uint32]
    left: NDArray[np.float32]
    tokens: NDArray[np.uint16]
    masses: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramModel:
    """Levels of orders 2, 3, ... over a unigram distribution.

    Attributes:
        unigram: Smoothed unigram probabilities, shape (vocab,).
        levels: Order 2 first.
        end_id: The token that ends a document, and starts the next.
    """

    unigram: NDArray[np.float64]
    levels: tuple[NGramLevel, ...]
    end_id: int

    def probabilities(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Return the next-token distribution after `tokens`, shape (vocab,), all positive."""
        result = self.unigram.copy()
        packed = 0
        for depth, level in enumerate(self.levels):
            if depth >= len(tokens):
                break
            token = tokens[-1 - depth]
            packed |= token << (TOKEN_BITS * depth)
            place = int(level.contexts.searchsorted(np.uint64(packed)))
            if place == len(level.contexts) or int(level.contexts[place]) != packed:
                break
            begin, end = level.starts[place], level.starts[place + 1]
            result *= level.left[place]
            result[level.tokens[begin:end]] += level.masses[begin:end]
            if token == self.end_id:
                break
        result /= result.sum()  # Single-precision tables: the sum is one to seven digits before.
        return result
