"""What is kept of every block, and what becomes of it: the file of hits.

Source: `watermark/spec/scan.md`, Hits.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from watermark.corpora import broken, tables
from watermark.corpora.packing import read_rows
from watermark.stats import discoveries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from watermark.corpora.blocks import Block
    from watermark.corpora.journal import Kept
    from watermark.corpora.results import BrokenRecord, PooledResult
    from watermark.corpora.scoring import DocumentScores, Scorer
    from watermark.corpora.shards import Shard
    from watermark.corpora.sources import Source

SCHEMA: Final = (
    ("file", "string"),
    ("offset", "int64"),
    ("record_index", "int64"),
    ("key_id", "string"),
    ("form", "string"),
    ("n_tokens", "int64"),
    ("n_scored", "int64"),
    ("statistic", "double"),
    ("log_pvalue", "double"),
    ("log_pvalue_fdr", "double"),
)
MAX_BROKEN: Final = 100
"""Broken records that a result holds; the file beside the hits names all."""
_BATCH_ROWS: Final = 1 << 16
_STATISTICS, _LOG_PVALUES = 1, 2  # arrays of a kept block
_COLUMNS: Final = 6  # of a kept document: test, span, offset, index, n_tokens, n_scored


def keep_block(
    block: Block, layers: Sequence[int], scores: Sequence[DocumentScores]
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what is kept of a block: header and arrays.

    Args:
        block: The block.
        layers: The layer of every test.
        scores: What every test makes of its documents.
    """
    header = {
        "shard": block.shard,
        "number": block.number,
        "is_last": block.is_last,
        "stored_bytes": block.stored_bytes,
        "records": block.records,
        "n_documents": len(block.documents),
        "n_skipped": block.n_skipped,
        "n_tokens": [int(block.cuts[layer].n_tokens.sum()) for layer in layers],
        "n_tested": [one.n_tested for one in scores],
    }
    documents = [
        _columns(test, block, layers[test], one)
        for test, one in enumerate(scores)
        if len(one.found)
    ]
    arrays: list[NDArray[Any]] = [
        np.concatenate([np.zeros((0, _COLUMNS), np.int64), *documents]),
        np.concatenate([one.statistics for one in scores]),
        np.concatenate([one.log_pvalues for one in scores]),
        broken.packed(block.skipped),
    ]
    for cut in block.cuts:
        arrays += [cut.rows.take(cut.pairs, axis=0), cut.pair_ends, cut.prompts, cut.prompt_ends]
    return header, arrays


def _columns(test: int, block: Block, layer: int, scores: DocumentScores) -> NDArray[np.int64]:
    """Return the whole numbers of a test's documents, shape (k, 6)."""
    found = scores.found
    return np.column_stack(
        [
            np.full(len(found), test),
            block.documents[found],
            block.cuts[layer].n_tokens[found],
            scores.found_scored,
        ]
    ).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Found:
    """Some discoveries, in the order of the corpus, those of a document by test.

    Attributes:
        tests: Shape (k,): places of key and form.
        files: Shape (k,).
        rows: Shape (k, 4): offset, record index, n_tokens, n_scored.
        statistics: Shape (k,).
        log_pvalues: Shape (k,).
        log_pvalues_fdr: Shape (k,).
    """

    tests: NDArray[np.int64]
    files: NDArray[np.int64]
    rows: NDArray[np.int64]
    statistics: NDArray[np.float64]
    log_pvalues: NDArray[np.float64]
    log_pvalues_fdr: NDArray[np.float64]


class Tally:
    """Adds up blocks, in the order of the plan."""

    def __init__(self, sources: Sequence[Source], shards: Sequence[Shard], n_tests: int) -> None:
        """Begin at nothing."""
        self.sources = sources
        self.n_records = self.n_documents = self.n_broken = 0
        self.n_tokens = [0] * n_tests
        self.n_tested = [0] * n_tests
        self.broken: list[BrokenRecord] = []
        self._shards = shards
        self._span_starts: dict[tuple[int, int], int] = {}
        self._ends: dict[int, int] = {}  # records of a file so far
        self._blocks: list[tuple[Kept, NDArray[np.int64]]] = []  # and where its spans start

    def add(self, kept: Kept) -> None:
        """Take the next block."""
        header = kept.header
        self.n_records += sum(header["records"])
        self.n_documents += header["n_documents"]
        self.n_broken += header["n_skipped"]
        for test, (n_tokens, n_tested) in enumerate(
            zip(header["n_tokens"], header["n_tested"], strict=True)
        ):
            self.n_tokens[test] += n_tokens
            self.n_tested[test] += n_tested
        room = MAX_BROKEN - len(self.broken)
        if header["n_skipped"] and room:
            self.broken += islice(broken.records(kept, self.sources), room)
        starts = self._starts(header["shard"], header["records"], header["number"])
        if kept.arrays[0].lengths[0]:
            self._blocks.append((kept, starts))

    def _starts(self, shard: int, records: Sequence[int], number: int) -> NDArray[np.int64]:
        """Return file and first record index of every span of a shard, shape (n, 2)."""
        spans = self._shards[shard].spans
        for position, (span, n_records) in enumerate(zip(spans, records, strict=True)):
            before = self._ends.get(span.file, 0)
            if number == 0:
                self._span_starts[shard, position] = before
            self._ends[span.file] = before + n_records
        self._span_starts = {at: one for at, one in self._span_starts.items() if at[0] == shard}
        return np.array(
            [(span.file, self._span_starts[shard, i]) for i, span in enumerate(spans)], np.int64
        )

    def discoveries(self, fdr: float) -> Discoveries:
        """Return the discoveries over all documents, keys and forms."""
        logs = [_reals(kept, _LOG_PVALUES) for kept, _ in self._blocks]
        adjusted = discoveries(np.concatenate([np.zeros(0), *logs]), sum(self.n_tested), alpha=fdr)
        return Discoveries(self._blocks, adjusted, math.log(fdr), len(self.n_tested))


class Discoveries:
    """The discoveries of a scan; in memory are the adjusted p-values, and one block's rows.

    Attributes:
        n_hits: Discoveries of every test.
    """

    def __init__(
        self,
        blocks: Sequence[tuple[Kept, NDArray[np.int64]]],
        adjusted: NDArray[np.float64],
        log_alpha: float,
        n_tests: int,
    ) -> None:
        """Count the discoveries.

        Args:
            blocks: Every block with documents, and file and first record index of its spans.
            adjusted: The adjusted log p-value of every document of the blocks, in their order.
            log_alpha: Natural log of the level.
            n_tests: Keys and forms.
        """
        self._blocks = blocks
        self._adjusted = adjusted
        self._log_alpha = log_alpha
        counts = np.zeros(n_tests, np.int64)
        for part in self.by_block():
            counts += np.bincount(part.tests, minlength=n_tests)
        self.n_hits = tuple(counts.tolist())

    def by_block(self) -> Iterator[Found]:
        """Yield the discoveries of one block after the other, in the order of the corpus."""
        stop = 0
        for kept, starts in self._blocks:
            start, stop = stop, stop + kept.arrays[0].lengths[0]
            adjusted = self._adjusted[start:stop]
            is_found = adjusted <= self._log_alpha
            if is_found.any():
                yield _found(kept, starts, adjusted, is_found)


def _reals(kept: Kept, array: int) -> NDArray[np.float64]:
    """Return what a block keeps of every document in one of its arrays."""
    shape = kept.arrays[array]
    return read_rows(kept.path, shape, 0, shape.lengths[0])


def _found(
    kept: Kept,
    starts: NDArray[np.int64],
    adjusted: NDArray[np.float64],
    is_found: NDArray[np.bool_],
) -> Found:
    """Return those documents of a block that are discoveries."""
    numbers = read_rows(kept.path, kept.arrays[0], 0, len(is_found))[is_found]
    spans = numbers[:, 1].copy()
    numbers[:, 3] += starts[spans, 1]
    numbers[:, 1] = starts[spans, 0]
    # The order of the corpus, whatever the order of work was.
    order = np.lexsort((numbers[:, 0], numbers[:, 3], numbers[:, 1]))
    numbers = numbers[order]
    reals = (_reals(kept, _STATISTICS), _reals(kept, _LOG_PVALUES), adjusted)
    statistics, log_pvalues, log_pvalues_fdr = (one[is_found][order] for one in reals)
    return Found(
        tests=numbers[:, 0],
        files=numbers[:, 1],
        rows=numbers[:, 2:],
        statistics=statistics,
        log_pvalues=log_pvalues,
        log_pvalues_fdr=log_pvalues_fdr,
    )


def describe(fdr: float, tally: Tally, pooled: Sequence[PooledResult]) -> str:
    """Return what the file of hits says of its scan, as JSON."""
    summary = {
        "fdr": fdr,
        "n_files": len(tally.sources),
        "n_records": tally.n_records,
        "n_documents": tally.n_documents,
        "n_broken": tally.n_broken,
        "broken": [asdict(one) for one in tally.broken],
        "pooled": [asdict(one) for one in pooled],
    }
    return msgspec.json.encode(summary).decode()


def write(
    path: Path,
    found: Discoveries,
    tally: Tally,
    scorers: Sequence[Scorer],
    notes: Mapping[str, str],
) -> None:
    """Write the hits to a file; it is replaced."""
    tables.write_rows(path, SCHEMA, _batches(found, tally, scorers), notes)


def _batches(
    found: Discoveries, tally: Tally, scorers: Sequence[Scorer]
) -> Iterator[dict[str, Any]]:
    """Yield the columns of equally many rows at a time, whatever blocks they come from."""
    waiting: list[Found] = []
    for part in found.by_block():
        waiting.append(part)
        while sum(len(one.tests) for one in waiting) >= _BATCH_ROWS:
            joined = _join(waiting)
            yield _table(_slice(joined, 0, _BATCH_ROWS), tally, scorers)
            waiting = [_slice(joined, _BATCH_ROWS, len(joined.tests))]
    if sum(len(one.tests) for one in waiting):
        yield _table(_join(waiting), tally, scorers)


def _join(parts: Sequence[Found]) -> Found:
    names = [field.name for field in fields(Found)]
    return Found(*(np.concatenate([getattr(one, name) for one in parts]) for name in names))


def _slice(part: Found, start: int, stop: int) -> Found:
    return Found(*(getattr(part, field.name)[start:stop] for field in fields(Found)))


def _table(part: Found, tally: Tally, scorers: Sequence[Scorer]) -> dict[str, Any]:
    offsets, indices, n_tokens, n_scored = part.rows.T
    return {
        "file": [tally.sources[i].name for i in part.files],
        "offset": offsets,
        "record_index": indices,
        "key_id": [scorers[i].record.key_id for i in part.tests],
        "form": [scorers[i].layer.form for i in part.tests],
        "n_tokens": n_tokens,
        "n_scored": n_scored,
        "statistic": part.statistics,
        "log_pvalue": part.log_pvalues,
        "log_pvalue_fdr": part.log_pvalues_fdr,
    }
