"""Power cuts: what was acknowledged is there afterwards, and nothing else has a hole.

Each cut writes batches of rows to a disk in memory, loses the power at a random write or sync,
restores what a platter may hold then, and reads the file as any process would.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.support.disks import Disk
from watermark.errors import LedgerFileError
from watermark.ledger.files import LedgerFile, read_file
from watermark.ledger.rows import Kind, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "node_0_1.ledger"
_MOST_OPERATIONS = 400


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What one cut left.

    Attributes:
        acknowledged: Rows whose `append` returned.
        lost: Of those, how many are gone.
        has_hole: Whether a number is missing before the last row.
        has_other: Whether a row is there that was never written so.
    """

    acknowledged: int
    lost: int
    has_hole: bool
    has_other: bool


def cut(seed: int, folder: Path, *, honors_sync: bool = True) -> Cut:
    """Write until the power goes, and read what is there."""
    rng = np.random.default_rng(seed)
    disk = Disk(f"cut-{honors_sync}", honors_sync=honors_sync)
    disk.cut_after = int(rng.integers(_MOST_OPERATIONS))
    written: list[Row] = []
    acknowledged = 0
    with contextlib.ExitStack() as stack, contextlib.suppress(LedgerFileError):
        file = LedgerFile(
            Path("/disk") / NAME, vfs=disk.name, checkpoint_bytes=int(rng.integers(20_000, 200_000))
        )
        stack.callback(file.abandon)
        for rows in _batches(rng):
            written += rows
            file.append(rows)
            acknowledged += len(rows)
    disk.write_survivors(folder, rng)
    found = _recovered(folder / NAME)
    numbered = [Row(n, *row[1:]) for n, row in enumerate(written, start=1)]
    return Cut(
        acknowledged=acknowledged,
        lost=sum(row not in found for row in numbered[:acknowledged]),
        has_hole=[row.seq for row in found] != list(range(1, len(found) + 1)),
        has_other=not set(found) <= set(numbered),
    )


def _batches(rng: np.random.Generator) -> Iterator[list[Row]]:
    for _ in range(_MOST_OPERATIONS):
        yield [
            Row(
                seq=0,
                kind=Kind.END,
                at_us=int(rng.integers(1 << 50)),
                reply=rng.bytes(16),
                contents=rng.bytes(int(rng.integers(4000))),
            )
            for _ in range(int(rng.integers(1, 6)))
        ]


def _recovered(path: Path) -> tuple[Row, ...]:
    if not path.exists():
        return ()
    try:
        return read_file(path).rows
    except LedgerFileError:
        return ()


def run(n_cuts: int, *, honors_sync: bool = True, first: int = 0) -> list[Cut]:
    """Cut the power n times, with seeds from the first on."""
    cuts = []
    for seed in range(first, first + n_cuts):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            cuts.append(cut(seed, Path(folder), honors_sync=honors_sync))
    return cuts


def main(n_cuts: int = 10_000) -> None:
    """Print the table."""
    print("sync        cuts  acknowledged rows    lost  cuts with a hole  with other rows")
    for honors_sync, count in ((True, n_cuts), (False, max(100, n_cuts // 25))):
        cuts = run(count, honors_sync=honors_sync)
        print(
            f"{'kept' if honors_sync else 'taken out':<10}{count:>6}"
            f"{sum(one.acknowledged for one in cuts):>19,}{sum(one.lost for one in cuts):>8,}"
            f"{sum(one.has_hole for one in cuts):>18}{sum(one.has_other for one in cuts):>17}"
        )
