"""Every record that could not be read: kept with its block, and written beside the file of hits.

Rule 1: those of one block are in memory at a time. Rule 2: a reason never quotes the file.

Source: `watermark/spec/scan.md`, Broken records.
"""

from __future__ import annotations

import os
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from watermark.corpora.packing import read_rows
from watermark.corpora.results import BrokenRecord
from watermark.errors import CorpusError, ScanJournalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from watermark.corpora.journal import Kept
    from watermark.corpora.readers import Skipped
    from watermark.corpora.sources import Source

SUFFIX: Final = ".broken.jsonl"
_ARRAY: Final = 3  # of a kept block


def beside(out: Path) -> Path:
    """Return the file that names the broken records of the scan whose hits are in `out`."""
    return out.with_name(out.name + SUFFIX)


def packed(skipped: Sequence[Skipped]) -> NDArray[np.uint8]:
    """Return the broken records of a block as an array; headers stay small, as all are read."""
    return np.frombuffer(msgspec.msgpack.encode([astuple(one) for one in skipped]), np.uint8)


def records(kept: Kept, sources: Sequence[Source]) -> Iterator[BrokenRecord]:
    """Yield the broken records of a kept block.

    Raises:
        ScanJournalError: It is damaged.
    """
    shape = kept.arrays[_ARRAY]
    data = read_rows(kept.path, shape, 0, shape.lengths[0]).tobytes()
    try:
        found = msgspec.msgpack.decode(data, type=list[tuple[int, int, str, int]])
    except msgspec.DecodeError as err:
        raise ScanJournalError(f"{kept.path} is damaged; remove it, and scan again") from err
    for file, offset, reason, n_records in found:
        yield BrokenRecord(
            file=sources[file].name, offset=offset, reason=reason, n_records=n_records
        )


def write(out: Path, blocks: Iterable[Kept], sources: Sequence[Source]) -> Path:
    """Write all broken records beside `out`, whole or not at all, and return where.

    Raises:
        CorpusError: It cannot be written.
        ScanJournalError: A block is damaged.
    """
    path = beside(out)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            for kept in blocks:
                lines = (msgspec.json.encode(asdict(one)) for one in records(kept, sources))
                file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as err:
        raise CorpusError(
            f"{path}: {(err.strerror or '').lower()}; make room, and run the command again: it "
            "goes on where it stopped"
        ) from err
    return path
