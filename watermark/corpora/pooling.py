"""All documents as one body of evidence: every distinct pair of the corpus once.

Rule 1: a context that occurs in any prompt of the corpus is not scored at all. Rule 2: each
(context, token) pair that some document keeps is scored once, whatever documents hold it.

Memory is constant because pairs fall into buckets by the public hash of their context: equal pairs
meet in one bucket, and two parts of the buckets are in memory at a time. The disk holds the pairs
in the meantime: 4 (context_width + 1) bytes each, repeats within a block left out.

Why this is exact: which pairs are scored is a function of the texts (Rules 1 and 2, and where two
public 64-bit hashes meet, which leaves one of two pairs out). No key has been looked at until all
of that is settled. So under the null the n scores are independent Exp(1) and their sum is
Gamma(n, 1); positions of the account channel drop out by route bits, which are independent of
the scores. The sum does not depend on how the work was shared out: a part is sorted by its hashes
before it is added up, and the sums of parts are added by `math.fsum`. Nor does it depend on how
often the work stopped: the sums of finished parts are kept as they are, to the last bit.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from watermark.corpora.cutting import BUCKETS, context_hashes, pair_hashes
from watermark.corpora.packing import read_rows
from watermark.detection.result import FEWEST_SHOWN
from watermark.seeding import first_occurrences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from watermark.corpora.blocks import Layer
    from watermark.corpora.journal import Journal, Kept
    from watermark.corpora.scoring import Scorer

PART_PAIRS: Final = 1 << 20
"""Pairs of one part, some 100 bytes each while it is worked on."""
_TOGETHER: Final = 2  # parts in memory
FIRST_SPILL: Final = 4
"""Arrays of a kept block before those of its layers."""
ARRAYS_OF_A_LAYER: Final = 4


class Spill:
    """The pairs and prompt contexts of one layer, in the files of all blocks."""

    def __init__(self, layer: Layer, position: int, blocks: Sequence[Kept]) -> None:
        """Read how many pairs every bucket has.

        Args:
            layer: Form, unit and context width.
            position: The layer's place among all layers.
            blocks: Every block, in the order of the plan.

        Attributes:
            position: As given.
            n_bytes: What the pairs of all blocks take.
        """
        self.position = position
        self._layer = layer
        self._first = FIRST_SPILL + ARRAYS_OF_A_LAYER * position
        self._blocks = blocks
        sizes = np.zeros(BUCKETS, np.int64)
        for block in blocks:
            ends = read_rows(block.path, block.arrays[self._first + 1], 0, BUCKETS + 1)
            ends = ends.astype(np.int64)
            sizes += ends[1:] - ends[:-1]
        self._parts = list(_parts(sizes))
        self.n_bytes = int(sizes.sum()) * 4 * (layer.width + 1)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Runs of buckets that fit into memory; equal pairs lie in one of them."""
        return self._parts

    def distinct_rows(self, part: tuple[int, int]) -> tuple[NDArray[np.uint32], int]:
        """Return the distinct pairs of a part that no prompt excludes, sorted by hash.

        Returns:
            Rows of context and token, and how many bytes were read for them.
        """
        rows = self._read(0, *part, self._layer.width + 1)
        hashes = context_hashes(rows[:, : self._layer.width])
        prompts = context_hashes(self._read(2, *part, self._layer.width))
        pairs = pair_hashes(hashes, rows[:, self._layer.width])
        kept = first_occurrences(pairs)
        if len(prompts):
            kept &= ~np.isin(hashes, prompts)
        where = np.flatnonzero(kept)
        return rows.take(where[np.argsort(pairs[where])], axis=0), rows.nbytes

    def _read(self, array: int, start: int, stop: int, width: int) -> NDArray[np.uint32]:
        """Return the rows of some buckets, those of all blocks one after another."""
        found = [np.zeros((0, width), np.dtype("<u4"))]
        for block in self._blocks:
            shape = block.arrays[self._first + array]
            if shape.lengths[0]:
                where = block.arrays[self._first + array + 1]
                ends = read_rows(block.path, where, start, stop + 1)
                first, last = int(ends[0]), int(ends[-1])
                if last > first:
                    found.append(read_rows(block.path, shape, first, last))
        return np.concatenate(found)


def _parts(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield runs of buckets that fit into memory together."""
    start = held = 0
    for bucket in range(BUCKETS):
        if held and held + int(sizes[bucket]) > PART_PAIRS:
            yield start, bucket
            start, held = bucket, 0
        held += int(sizes[bucket])
    yield start, BUCKETS


Scored: TypeAlias = "dict[int, tuple[float, int]]"


class PooledSums:
    """Sum and number of scores of every test, over parts."""

    def __init__(self, scorers: Mapping[int, Scorer]) -> None:
        """Begin at nothing.

        Args:
            scorers: Of one layer, by the test's place.
        """
        self._scorers = scorers
        self._sums: dict[int, list[float]] = {test: [] for test in scorers}
        self._counts = dict.fromkeys(scorers, 0)

    @property
    def tests(self) -> tuple[int, ...]:
        """Return the places of its tests."""
        return tuple(self._scorers)

    def scored(self, rows: NDArray[np.uint32]) -> Scored:
        """Return the sum and number of scores of some rows in every test; changes nothing.

        The scores of one test are in memory at a time.
        """
        return {test: _summed(scorer.scores(rows)[0]) for test, scorer in self._scorers.items()}

    def add(self, scored: Scored) -> None:
        """Add what some rows are worth."""
        for test, (value, count) in scored.items():
            self._sums[test].append(value)
            self._counts[test] += count

    def total(self, test: int) -> tuple[float, int]:
        """Return a test's sum of scores, in nats, and how many there are."""
        return math.fsum(self._sums[test]), self._counts[test]


def _summed(scores: NDArray[np.float64]) -> tuple[float, int]:
    return float(scores.sum()), len(scores)


def pool_parts(spill: Spill, sums: PooledSums, journal: Journal) -> Iterator[tuple[Scored, int]]:
    """Yield what every part of a spill is worth, and how many bytes its pairs take, in order.

    What the journal keeps is not worked out again. Parts are worked on in threads, two at a time:
    sorting, hashing and the cipher leave the interpreter to each other.
    """

    def work(part: tuple[int, int]) -> tuple[Scored, int]:
        kept = journal.kept_sums(spill.position, part)
        if kept is not None:
            return {test: (value, count) for test, value, count in kept["sums"]}, kept["n_bytes"]
        rows, n_bytes = spill.distinct_rows(part)
        scored = sums.scored(rows)
        if _may_be_kept(scored):
            journal.keep_sums(spill.position, part, _described(scored, n_bytes))
        return scored, n_bytes

    pool = ThreadPoolExecutor(_TOGETHER)
    try:
        yield from pool.map(work, spill.parts)
    finally:
        pool.shutdown(cancel_futures=True)


def _may_be_kept(scored: Scored) -> bool:
    """Return whether sums may lie on disk: one over few positions tells too much of each.

    That depends on the texts and on route bits, which are independent of the scores.
    """
    return all(count >= FEWEST_SHOWN for _, count in scored.values())


def _described(scored: Scored, n_bytes: int) -> dict[str, object]:
    """Return what the journal keeps of a part."""
    return {"n_bytes": n_bytes, "sums": [[test, *one] for test, one in scored.items()]}
