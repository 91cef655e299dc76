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
    found = repeats(values)
    return np.ones(len(values), np.bool_) if found is None else ~found


def repeats(values: NDArray[np.uint64]) -> NDArray[np.bool_] | None:
    """Return True wherever a value has occurred before, shape (n,); None for nowhere.

    What `first_occurrences` leaves out, at less cost where nothing repeats.
    """
    n = len(values)
    if n < 2:  # noqa: PLR2004 - nothing to repeat
        return None
    index_bits = np.uint64((n - 1).bit_length())
    low = (np.uint64(1) << index_bits) - np.uint64(1)
    packed = values & ~low
    packed |= np.arange(n, dtype=np.uint64)
    packed.sort()
    high = packed >> index_bits
    (runs,) = (high[1:] == high[:-1]).nonzero()
    if len(runs) == 0:
        return None
    # Within a run of equal high bits the index ascends, so whoever follows is a repeat ...
    before = (packed.take(runs) & low).view(np.int64)
    after = (packed.take(runs + 1) & low).view(np.int64)
    is_repeat = np.zeros(n, np.bool_)
    is_repeat[after] = True
    # ... unless two values only share their high bits; those few runs are sorted exactly.
    collides = values.take(after) != values.take(before)
    if collides.any():
        members = (packed[np.isin(high, high[runs[collides]])] & low).view(np.int64)
        is_repeat[_exact_firsts(values, members)] = False
        return is_repeat if is_repeat.any() else None
    return is_repeat


def _exact_firsts(values: NDArray[np.uint64], members: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for every distinct value among the members, the smallest index that has it."""
    members = np.sort(members)
    order = members[np.argsort(values[members], kind="stable")]
    sorted_values = values[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = sorted_values[1:] != sorted_values[:-1]
    return order[starts]
