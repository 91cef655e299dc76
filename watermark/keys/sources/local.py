"""`file:PATH`: a key file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from watermark.keys.keyfile import check_private, read_key_file

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.secret import SecretKey

Stamp = tuple[int, int, int, int, int]


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what tells a file from one that was changed or put in its place."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class FileSource:
    """Key files. One that has not changed since it was read is checked and not read again.

    Args:
        folder: Where relative paths start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._parent = folder
        self._known: dict[str, tuple[Stamp, str, SecretKey]] = {}

    def open(self, place: str, key_id: str) -> SecretKey:
        """Return the key in a file.

        Raises:
            KeyFileError: The file is missing, damaged, too open, or another key's.
        """
        path = os.path.join(self._folder, place)  # noqa: PTH118 - 10,000 a reload
        stamp = None
        with contextlib.suppress(OSError, ValueError):  # reading it says why
            status = os.stat(path)  # noqa: PTH116 - as above
            stamp = stamp_of(status)
            known = self._known.get(place)
            if known is not None and known[:2] == (stamp, key_id):
                check_private(status, self._parent / place)
                return known[2]
        # The stamp is older than what is read: a file put in its place meanwhile is read again.
        key = read_key_file(self._parent / place, expected_id=key_id)
        if stamp is not None:
            self._known[place] = (stamp, key_id, key)
        return key
