"""Disks that lose power: a file system for SQLite, in memory, that drops, tears and reorders.

What was written and not synced may be there after a cut, or not, or in part, in any order; what
was synced is there. A file's name is as durable as its first sync.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.random import Generator

SECTOR: Final = 512


class PowerCutError(apsw.IOError):
    """The power went."""


@dataclass
class Image:
    """One file: what a process sees, what is on the platter, and what is under way."""

    live: bytearray = field(default_factory=bytearray)
    durable: bytearray | None = None
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def write(self, offset: int, data: bytes) -> None:
        _put(self.live, offset, data)
        self.pending.append((offset, data))

    def truncate(self, size: int) -> None:
        del self.live[size:]
        self.pending.append((size, None))

    def sync(self) -> None:
        self.durable = bytearray(self.live)
        self.pending.clear()

    def after_cut(self, rng: Generator) -> bytes | None:
        """Return what is on the platter when the power is back."""
        if self.durable is None and not (self.pending and rng.random() < 0.5):
            return None
        platter = bytearray(self.durable or b"")
        pieces = [piece for write in self.pending for piece in _sectors(*write)]
        kept = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        order = rng.permutation(len(pieces)) if rng.random() < 0.7 else range(len(pieces))
        for place in order:
            if rng.random() >= kept:
                continue
            offset, data = pieces[place]
            if data is None:
                del platter[offset:]
            elif rng.random() < 0.1:
                _put(platter, offset, data[: int(rng.integers(len(data) + 1))])
            else:
                _put(platter, offset, data)
        return bytes(platter)


def _put(buffer: bytearray, offset: int, data: bytes) -> None:
    if len(buffer) < offset:
        buffer.extend(bytes(offset - len(buffer)))
    buffer[offset : offset + len(data)] = data


def _sectors(offset: int, data: bytes | None) -> Iterable[tuple[int, bytes | None]]:
    if data is None:
        yield offset, None
        return
    start = 0
    while start < len(data):
        end = min(len(data), (offset + start) // SECTOR * SECTOR + SECTOR - offset)
        yield offset + start, data[start:end]
        start = end


class Disk(apsw.VFS):
    """A disk in memory, known to SQLite by a name.

    Attributes:
        files: The images, by path.
        cut_after: Writes and syncs until the power goes; None for never.
        honors_sync: Whether a sync does anything: without, nothing is durable.
        fault: An error that writes or syncs meet, by operation; None for none.
    """

    def __init__(self, name: str, *, honors_sync: bool = True) -> None:
        super().__init__(name, "")
        self.name = name
        self.files: dict[str, Image] = {}
        self.cut_after: int | None = None
        self.honors_sync = honors_sync
        self.fault: dict[str, type[Exception]] = {}
        self.n_operations = 0
        self.is_dead = False

    def step(self, operation: str) -> None:
        """Count an operation; the power may go at it, or the disk may fail."""
        self.n_operations += 1
        if self.cut_after is not None and self.n_operations > self.cut_after:
            self.is_dead = True
        if self.is_dead:
            raise PowerCutError
        if operation in self.fault:
            raise self.fault[operation]("as told")

    def write_survivors(self, folder: Path, rng: Generator) -> None:
        """Write to a real folder what the platters hold after the cut."""
        for path, image in self.files.items():
            data = image.after_cut(rng)
            if data is not None:
                (folder / Path(path).name).write_bytes(data)

    def xOpen(  # noqa: N802 - SQLite's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> DiskFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        flags[1] = flags[0]
        return DiskFile(self, self.files.setdefault(path or "", Image()))

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, ARG002
        if not self.is_dead:  # who tidies up after the cut finds nobody to complain to
            self.files.pop(filename, None)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802, ARG002
        return pathname in self.files

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name


class DiskFile(apsw.VFSFile):
    """One open file of a disk."""

    def __init__(self, disk: Disk, image: Image) -> None:
        # The base has a file of the machine's behind it; this one has none.
        self._disk = disk
        self._image = image

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self._image.live[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.step("write")
        self._image.write(offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.step("write")
        self._image.truncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802, ARG002
        self._disk.step("sync")
        if self._disk.honors_sync:
            self._image.sync()

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._image.live)

    def xLock(self, level: int) -> None:  # noqa: N802
        """Nobody else is there."""

    def xUnlock(self, level: int) -> None:  # noqa: N802
        """Nobody else is there."""

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802, ARG002
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE  # as SQLite takes the machine's disks to be

    def xClose(self) -> None:  # noqa: N802
        """Nothing is held."""
