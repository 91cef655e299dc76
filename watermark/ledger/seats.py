"""A worker's place in a ledger's folder: no two processes write under one name.

Rule 1: a place is held by a lock that ends with its process. Rule 2: a number is on the disk
before the file that it names, so that a file that somebody took away is missed.

Source: `watermark/spec/ledger.md`, Files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final

from watermark.errors import LedgerConfigError, LedgerFileError
from watermark.ledger.files import FileName, check_node, files_in

if TYPE_CHECKING:
    from pathlib import Path

MAX_WORKERS: Final = 4096
_DIGITS: Final = 12


class Seat:
    """The lowest free place of a node, held until `leave`.

    Args:
        folder: The ledger's folder, which is made.
        node: The machine's name.

    Raises:
        LedgerConfigError: The name or the folder cannot be used, or every place is taken.
    """

    def __init__(self, folder: Path, node: str) -> None:
        self.folder = folder
        self.node = check_node(node)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.worker, self._descriptor = self._take()
        except OSError as err:
            raise LedgerConfigError(
                f"cannot use ledger folder {folder}: {err.strerror}; choose a writable one"
            ) from err
        known = [0, *(n.sequence for n in files_in(folder) if self._is_ours(n)), self._noted()]
        self.sequence = max(known)

    def next_file(self) -> Path:
        """Return the path of the next file; its number is on the disk.

        Raises:
            LedgerFileError: The number cannot be written.
        """
        try:
            os.pwrite(self._descriptor, f"{self.sequence + 1:0{_DIGITS}d}\n".encode(), 0)
            os.fsync(self._descriptor)
        except OSError as err:
            raise LedgerFileError(
                f"cannot write in {self.folder}: {err.strerror}; check the disk"
            ) from err
        self.sequence += 1
        return self.folder / str(FileName(self.node, self.worker, self.sequence))

    def leave(self) -> None:
        """Give the place up."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _take(self) -> tuple[int, int]:
        for worker in range(MAX_WORKERS):
            path = self.folder / f"{self.node}_{worker}.seat"
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            return worker, descriptor
        raise LedgerConfigError(f"{MAX_WORKERS} workers write to {self.folder}; use another folder")

    def _is_ours(self, name: FileName) -> bool:
        return (name.node, name.worker) == (self.node, self.worker)

    def _noted(self) -> int:
        noted = os.pread(self._descriptor, _DIGITS, 0)
        return int(noted) if noted.isdigit() else 0
