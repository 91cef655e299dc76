"""Which positions are scored: each value once.

Repeats are found by sorting 64-bit values and comparing neighbours. The values are sorted with
their index packed into the low bits, so one plain sort (vectorized by numpy) does the work of an
argsort; values whose high bits meet are then told apart exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def first_occurrences(values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return True at the first position of every distinct value, shape (n,).

    Exact for all inputs; one vectorized sort where the high bits spread, as those of streams and
    pair values do, n log n with a sort of its own for those that meet.
    """
    n = len(values)
    is_first = np.ones(n, np.bool_)
    if n < 2:  # noqa: PLR2004 - nothing to repeat
        return is_first
    index_bits = np.uint64((n - 1).bit_length())
    low = (np.uint64(1) << index_bits) - np.uint64(1)
    packed = values & ~low
    packed |= np.arange(n, dtype=np.uint64)
    packed.sort()
    high = packed >> index_bits
    follows = np.flatnonzero(high[1:] == high[:-1]) + 1
    if len(follows) == 0:
        return is_first
    # Within a run of equal high bits the index ascends, so whoever follows is a repeat ...
    repeats = (packed[follows] & low).astype(np.int64)
    before = (packed[follows - 1] & low).astype(np.int64)
    is_first[repeats] = False
    # ... unless two values only share their high bits; those few runs are sorted exactly.
    collides = values[repeats] != values[before]
    if collides.any():
        members = (packed[np.isin(high, high[follows[collides]])] & low).astype(np.int64)
        is_first[_exact_firsts(values, members)] = True
    return is_first


def _exact_firsts(values: NDArray[np.uint64], members: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for every distinct value among the members, the smallest index that has it."""
    members = np.sort(members)
    order = members[np.argsort(values[members], kind="stable")]
    sorted_values = values[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = sorted_values[1:] != sorted_values[:-1]
    return order[starts]
