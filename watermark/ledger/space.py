"""How much room a ledger's folder has left."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from watermark.ledger.limits import WriterLimits

_SCAN_S: Final = 5.0


class Space:
    """The room of a folder, looked at again and again.

    Args:
        folder: The ledger's folder.
        limits: What is left free, and what the folder may hold.
        clock: Monotonic seconds.

    Attributes:
        held: Bytes that the folder holds, as last counted.
    """

    def __init__(self, folder: Path, limits: WriterLimits, clock: Callable[[], float]) -> None:
        self.held = 0
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._next_scan = 0.0

    def shortage(self) -> str:
        """Return the cause of a gap that begins now; empty where there is room."""
        try:
            space = os.statvfs(self._folder)
            if self._clock() >= self._next_scan:
                self._next_scan = self._clock() + _SCAN_S
                self.held = _bytes_in(self._folder, self._folder / "outbox")
        except OSError:
            return ""  # a write will tell
        if space.f_bavail * space.f_frsize < self._limits.reserve_bytes:
            return "disk-full"
        return "folder-full" if self.held > self._limits.folder_bytes else ""


def _bytes_in(*folders: Path) -> int:
    """Return the size of the files in some folders; one that is not there is empty."""
    total = 0
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # a file may go while it is looked at
            total += sum(one.stat().st_size for one in os.scandir(folder) if one.is_file())
    return total
