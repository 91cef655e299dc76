"""What torch's generator gives on the CPU, without torch: the Hugging Face schemes' randomness.

Rule 1: torch takes the low 32 bits of a seed, and both generators are the Mersenne Twister as its
authors seed it, so that numpy's gives the same words. Rule 2: a CUDA generator gives others: a
mark that was made with `device="cuda"` cannot be read here.

Source: Matsumoto and Nishimura 1998 (MT19937); torch 2.13, `aten/src/ATen/native` (`randperm`:
at step i swap with i + word mod (n - i); `randint` below 2^32: word mod range).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Twister:
    """The generator, to be seeded again and again."""

    __slots__ = ("_bits", "_seeder")

    def __init__(self) -> None:
        self._bits = np.random.MT19937(0)
        # The one public way to the authors' seeding by one word; not a source of randomness.
        self._seeder = np.random.RandomState(self._bits)

    def words(self, seed: int, count: int) -> NDArray[np.uint64]:
        """Return the first words after a seed, each below 2^32, shape (count,)."""
        self._seeder.seed(seed & 0xFFFFFFFF)
        return self._bits.random_raw(count)


class Permutations:
    """The beginnings of `torch.randperm(size)` on the CPU, without building them.

    Args:
        size: How many are permuted.
        first: How many of a permutation's first values are of interest.
    """

    __slots__ = ("_divisors", "_first", "_steps", "_twister")

    def __init__(self, size: int, first: int) -> None:
        self._first = min(first, size - 1)
        self._steps = np.arange(self._first, dtype=np.uint64)
        self._divisors = np.uint64(size) - self._steps
        self._twister = Twister()

    def swaps(self, seed: int) -> NDArray[np.uint64]:
        """Return with which place each of the first places is swapped, in turn."""
        words = self._twister.words(seed, self._first)
        words %= self._divisors
        words += self._steps
        return words

    def is_among_first(self, swaps: NDArray[np.uint64], value: int) -> bool:
        """Return whether a value comes to lie in the first places.

        Args:
            swaps: Of a seed.
            value: 0..size - 1; others never do.
        """
        place, turn = value, 0
        while place < self._first:
            # A swap before the place's own turn, or its own with itself, settles it in front.
            if (swaps[turn : place + 1] == place).any():
                return True
            place, turn = int(swaps[place]), place + 1
        return bool((swaps[turn:] == place).any())

    def values_at(self, swaps: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the values that come to lie at some places of the whole permutation.

        A place gets its value at its own turn, from the place that it is swapped with; who lies
        there was put there by the last earlier turn that was swapped with it, if any was, from
        that turn's place. The chains are followed for all places together.

        Args:
            swaps: Of a seed, with `first` = size.
            places: Distinct places, shape (n,).
        """
        turns = places.copy()
        at = places.copy()
        has_turn = places < self._first
        at[has_turn] = swaps[places[has_turn]]
        moving = np.arange(len(places))
        while len(moving):
            moving = self._follow(swaps, at, turns, moving)
        return at

    def _follow(
        self,
        swaps: NDArray[np.uint64],
        at: NDArray[np.int64],
        turns: NDArray[np.int64],
        moving: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Take one step back along every chain that has one; return the chains that moved."""
        is_wanted = np.zeros(self._first + 2, np.bool_)
        is_wanted[at[moving]] = True
        hits = np.flatnonzero(is_wanted[swaps])
        sources: dict[int, list[int]] = {}
        for turn, place in zip(hits.tolist(), swaps[hits].tolist(), strict=True):
            sources.setdefault(place, []).append(turn)
        moved = []
        for chain in moving.tolist():
            found = sources.get(int(at[chain]), [])
            earlier = bisect_left(found, int(turns[chain]))
            if earlier:
                at[chain] = turns[chain] = found[earlier - 1]
                moved.append(chain)
        return np.array(moved, np.int64)
