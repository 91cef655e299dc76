"""What a scan has done so far, beside its result, so that a kill costs seconds.

Rule 1: a block, or the sums of a part of the pool, is kept whole or not at all: it is written under
another name, forced to disk, and renamed. Rule 2: what a result depends on (arguments, keys by
fingerprint, files by fingerprint, version) is written down first, and a scan goes on only where all
of it is as it was. Rule 3: one process writes. Rule 4: the folder is open to its owner only: it
holds the units of the texts.

Source: `watermark/spec/scan.md`, Journal.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from watermark.corpora.packing import Shape, pack, read_head
from watermark.errors import ScanJournalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

SUFFIX: Final = ".scan"
_PLAN: Final = "plan.json"
_BLOCK: Final = re.compile(r"(\d{8})-(\d{8})\.block")
_TEMPORARY: Final = ".part"


@dataclass(frozen=True, slots=True)
class Kept:
    """A block on disk.

    Attributes:
        path: Its file.
        header: What it says of itself.
        arrays: Where its arrays are.
    """

    path: Path
    header: dict[str, Any]
    arrays: list[Shape]


class Journal:
    """The folder of one scan; hold it open while the scan runs."""

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        """Begin a scan, or take one up again.

        Args:
            folder: Made where it is not there.
            plan: All that the result depends on, in JSON's types.

        Raises:
            ScanJournalError: The folder is of another scan, in use, damaged or not writable.
        """
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY)
        except OSError as err:
            raise ScanJournalError(
                f"{folder}: {(err.strerror or '').lower()}; choose another --out"
            ) from err
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(self._lock)
            raise ScanJournalError(
                f"{folder} is in use by another scan; wait for it, or choose another --out"
            ) from err
        try:
            self._agree(msgspec.json.format(msgspec.json.encode(plan)))
            self._progress = self._look()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    def n_blocks(self, shard: int) -> int:
        """Return how many blocks of a shard are kept, from its first."""
        return self._progress.get(shard, (0, False))[0]

    def is_done(self, shard: int) -> bool:
        """Return whether every block of a shard is kept."""
        return self._progress.get(shard, (0, False))[1]

    def keep(
        self, shard: int, number: int, header: dict[str, Any], arrays: Sequence[NDArray[Any]]
    ) -> None:
        """Keep a block.

        Raises:
            ScanJournalError: It cannot be written.
        """
        self._keep(f"{shard:08}-{number:08}.block", pack(header, arrays))
        if number == self.n_blocks(shard):
            self._progress[shard] = (number + 1, header["is_last"])

    def kept(self) -> Iterator[Kept]:
        """Yield every block, in the order of the plan.

        Raises:
            ScanJournalError: One is damaged.
        """
        for path in self._blocks():
            yield Kept(path, *read_head(path))

    def keep_sums(self, layer: int, part: tuple[int, int], header: dict[str, Any]) -> None:
        """Keep what a part of the pool is worth.

        Args:
            layer: The place of its layer.
            part: The run of buckets.
            header: Of 16 positions or more in every test: fewer must not lie on disk.

        Raises:
            ScanJournalError: It cannot be written.
        """
        self._keep(_sums_name(layer, part), pack(header, []))

    def kept_sums(self, layer: int, part: tuple[int, int]) -> dict[str, Any] | None:
        """Return what was kept of a part of the pool; None for nothing.

        Raises:
            ScanJournalError: It is damaged.
        """
        path = self.folder / _sums_name(layer, part)
        return read_head(path)[0] if path.exists() else None

    def remove(self) -> None:
        """Delete the folder: its scan has its result."""
        shutil.rmtree(self.folder)

    def _blocks(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if _BLOCK.fullmatch(path.name))

    def _look(self) -> dict[int, tuple[int, bool]]:
        """Return how far every shard is."""
        progress: dict[int, tuple[int, bool]] = {}
        for path in self.folder.glob(f"*{_TEMPORARY}"):
            path.unlink()
        for kept in self.kept():
            shard, number = kept.header["shard"], kept.header["number"]
            if number == progress.get(shard, (0, False))[0]:
                progress[shard] = (number + 1, kept.header["is_last"])
        return progress

    def _agree(self, plan: bytes) -> None:
        """Write the plan down, or refuse to go on with another."""
        path = self.folder / _PLAN
        if not path.exists():
            if self._blocks():
                raise ScanJournalError(f"{path} is missing; remove the folder, and scan again")
            self._write(path, plan)
            return
        before = path.read_bytes()
        if before != plan:
            raise ScanJournalError(
                f"{self.folder} is of a scan with another {_difference(before, plan)}; give the "
                "arguments, keys and files that it began with, or remove the folder to begin anew"
            )

    def _keep(self, name: str, data: bytes) -> None:
        """Write a file of the folder, or say what to do."""
        path = self.folder / name
        try:
            self._write(path, data)
        except OSError as err:
            raise ScanJournalError(
                f"{path}: {(err.strerror or '').lower()}; make room, and run the command again: "
                "it goes on where it stopped"
            ) from err

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + _TEMPORARY)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _sums_name(layer: int, part: tuple[int, int]) -> str:
    start, stop = part
    return f"{layer:08}-{start:08}-{stop:08}.sums"


def _difference(before: bytes, after: bytes) -> str:
    """Return the name of what two plans do not agree on."""
    try:
        old = msgspec.json.decode(before, type=dict[str, Any])
    except msgspec.DecodeError:
        return "plan (plan.json is damaged)"
    new = msgspec.json.decode(after, type=dict[str, Any])
    name = next((name for name in new if new[name] != old.get(name)), "plan")
    if name == "files":
        known = {tuple(one) for one in old.get("files", [])}
        changed = next((one for one in new["files"] if tuple(one) not in known), None)
        return f"list of files: {changed[0]} is new or changed" if changed else "list of files"
    return name
