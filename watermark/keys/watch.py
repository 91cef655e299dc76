"""Files that are looked at again and again, and which of them are not as they were.

Rule 1: a file is looked at before it is read, so that a change during the reading is seen at the
next look. Rule 2: of very many files each look takes the next few, so that a look is short and
every file gets its turn.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Stamp = tuple[int, ...]


def stamp_of(path: str) -> Stamp:
    """Return what tells a file from one that was changed, put in its place, or opened up.

    Links on the way are followed, so that a swap of them changes it; empty where there is no file.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - 1,000 a look
    except (OSError, ValueError):
        return ()
    return (
        status.st_mode,
        status.st_uid,
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class Watch:
    """Files by path, each with the names of those who depend on it."""

    def __init__(self) -> None:
        """Begin with no file."""
        self._stamps: dict[str, Stamp] = {}
        self._users: dict[str, set[str]] = {}
        self._turns: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, path: str, user: str) -> None:
        """Look at a file from now on, as it is now where it is new."""
        if path not in self._stamps:
            self._stamps[path] = stamp_of(path)
            self._users[path] = set()
            self._turns.append(path)
        self._users[path].add(user)

    def look(self, most: int) -> set[str]:
        """Look at the files whose turn it is.

        Args:
            most: How many.

        Returns:
            Those who depend on a file that is not as it was at the last look.
        """
        found: set[str] = set()
        for _ in range(min(most, len(self._turns))):
            path = self._turns[0]
            self._turns.rotate(-1)
            now = stamp_of(path)
            if now != self._stamps[path]:
                self._stamps[path] = now
                found |= self._users[path]
        return found

    def keep(self, users: Iterable[str]) -> None:
        """Look no longer at files on which nobody else depends."""
        kept = set(users)
        for path in list(self._stamps):
            self._users[path] &= kept
            if not self._users[path]:
                del self._stamps[path], self._users[path]
        self._turns = deque(path for path in self._turns if path in self._stamps)
