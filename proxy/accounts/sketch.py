"""How many different contexts were delivered: a HyperLogLog sketch, keyed, no text kept.

Source: Flajolet, Fusy, Gandouet and Meunier, AofA 2007.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.seeding import ContextPRF, as_token_ids, context_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Registers = NDArray[np.uint8]

_INDEX_BITS: Final = 11  # 2 KiB an account, a standard error of 2.3%
REGISTERS: Final = 1 << _INDEX_BITS
_REST_BITS: Final = 64 - _INDEX_BITS
_ALPHA: Final = 0.7213 / (1 + 1.079 / REGISTERS)
_SMALL: Final = 2.5 * REGISTERS


def empty() -> Registers:
    """Return the sketch of nothing."""
    return np.zeros(REGISTERS, np.uint8)


def add_contexts(
    registers: Registers, prf: ContextPRF, tokens: Sequence[int], context_width: int
) -> None:
    """Add the contexts of one reply.

    Args:
        registers: The sketch, changed in place.
        prf: Makes 64 even bits of a context; its key is the watch's own.
        tokens: The reply's token ids.
        context_width: Preceding tokens in a context, 1 to 4.
    """
    windows = context_windows(as_token_ids(tokens), context_width)
    if len(windows) == 0:
        return
    values, _ = prf.evaluate(windows)
    rest = values & np.uint64((1 << _REST_BITS) - 1)
    # The bit length of an integer below 2^53 is exact in the exponent of its float64.
    lengths = np.frexp(rest.astype(np.float64))[1]
    ranks = (_REST_BITS + 1 - lengths).astype(np.uint8)
    np.maximum.at(registers, (values >> np.uint64(_REST_BITS)).astype(np.int64), ranks)


def merged(one: Registers, other: Registers) -> Registers:
    """Return the sketch of what either has seen."""
    return np.maximum(one, other)


def estimate(registers: Registers) -> float:
    """Return about how many different contexts a sketch has seen."""
    raw = _ALPHA * REGISTERS**2 / float(np.ldexp(1.0, -registers.astype(np.int32)).sum())
    n_empty = int((registers == 0).sum())
    if raw <= _SMALL and n_empty:
        return REGISTERS * math.log(REGISTERS / n_empty)
    return raw
