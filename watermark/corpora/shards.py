"""The units of work of a scan: which bytes of which files belong together.

Rule 1: shards follow from the files alone, never from the number of processes, so that a result
does not depend on it. Rule 2: a shard that starts within a file owns the lines that start in it.
Rule 3: compressed files cannot be entered in the middle; each is one shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.corpora import tables
from watermark.corpora.sources import Compression, Format, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SHARD_BYTES: Final = 4 << 20
"""About a million tokens: seconds of work to lose in a kill, tens of megabytes to hold."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of one file.

    Attributes:
        file: Index of the file.
        source: The file.
        start: First byte, or first row of a table.
        stop: The byte or row after the last.
        stored_bytes: Its share of the file's size.
        group: The row group of a table that it is; 0 elsewhere.
    """

    file: int
    source: Source
    start: int
    stop: int
    stored_bytes: int
    group: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """Spans that are worked on together, small files in one shard.

    Attributes:
        index: Its place in the plan.
        spans: In the order of the files.
    """

    index: int
    spans: tuple[Span, ...]


def plan_shards(sources: Sequence[Source]) -> tuple[Shard, ...]:
    """Return the shards of all files, in order."""
    shards: list[Shard] = []
    waiting: list[Span] = []
    for span in _spans(sources):
        if waiting and sum(one.stored_bytes for one in waiting) + span.stored_bytes > SHARD_BYTES:
            shards.append(Shard(len(shards), tuple(waiting)))
            waiting = []
        waiting.append(span)
    if waiting:
        shards.append(Shard(len(shards), tuple(waiting)))
    return tuple(shards)


def _spans(sources: Iterable[Source]) -> Iterator[Span]:
    for index, source in enumerate(sources):
        if source.format is Format.PARQUET:
            yield from _groups(index, source)
        elif source.compression is not Compression.NONE:
            yield Span(index, source, 0, source.size, source.size)
        else:
            for start in range(0, max(source.size, 1), SHARD_BYTES):
                stop = min(start + SHARD_BYTES, source.size)
                yield Span(index, source, start, stop, stop - start)


def _groups(index: int, source: Source) -> Iterator[Span]:
    """Yield a span for each row group; one without rows where the footer cannot be read."""
    sizes = tables.row_group_sizes(source) or [0]
    start, share = 0, source.size // len(sizes)
    for group, size in enumerate(sizes):
        yield Span(index, source, start, start + size, share, group)
        start += size
