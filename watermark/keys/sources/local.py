"""`file:PATH`: a key file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from watermark.keys.keyfile import read_key_file

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.secret import SecretKey

Stamp = tuple[int, ...]


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what tells a file from one that was changed, put in its place, or opened up."""
    return (
        status.st_mode,
        status.st_uid,
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class FileSource:
    """Key files. One that is as it was when it was read, mode and owner too, is not read again.

    Args:
        folder: Where relative paths start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[Path, Stamp, SecretKey]] = {}

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the key in a file.

        Raises:
            KeyFileError: The file is missing, damaged, too open, or another key's.
        """
        known = self._known.get(place)
        path = self._folder / place if known is None else known[0]
        stamp: Stamp = ()
        with contextlib.suppress(OSError, ValueError):  # reading it says why
            stamp = stamp_of(os.stat(path))  # noqa: PTH116 - 10,000 a reload
            if known is not None and known[1] == stamp and known[2].key_id == key_id:
                return known[2]
        # The stamp is older than what is read: a file put in its place meanwhile is read again.
        key = read_key_file(path, expected_id=key_id)
        if stamp:
            self._known[place] = (path, stamp, key)
        return key
