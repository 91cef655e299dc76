"""Files that are looked at again and again, and which of them are not as they were.

Rule 1: a file is looked at before it is read, so that a change during the reading is seen at the
next look. Rule 2: of very many files each look takes those that are said to have changed and the
next few, so that a look is short and every file gets its turn. Rule 3: a thorough look takes them
all where nothing is said.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from watermark.keys.notices import Notices

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
        self._notices = Notices()
        self._due: set[str] | None = set()  # None: all

    def add(self, path: str, user: str) -> None:
        """Look at a file from now on, as it is now where it is new."""
        if path not in self._stamps:
            self._notices.follow(path)
            self._stamps[path] = stamp_of(path)
            self._users[path] = set()
            self._turns.append(path)
        self._users[path].add(user)

    def look(self, most: int) -> set[str]:
        """Look at the files that are said to have changed, and at those whose turn it is.

        Args:
            most: How many turns.

        Returns:
            Those who depend on a file that is not as it was at the last look.
        """
        self._notice()
        found: set[str] = set()
        if self._due is not None:
            found = self._look_at(self._due)
            self._due = set()
        turns = [self._turns[place] for place in range(min(most, len(self._turns)))]
        self._turns.rotate(-len(turns))
        return found | self._look_at(turns)

    def look_thoroughly(self) -> set[str]:
        """Look at the files that are said to have changed, or at all where nothing is said.

        Returns:
            Those who depend on a file that is not as it was at the last look.
        """
        self._notice()
        due, self._due = self._due, set()
        return self._look_at(list(self._stamps) if due is None else due)

    def keep(self, users: Iterable[str]) -> None:
        """Look no longer at files on which nobody else depends."""
        kept = set(users)
        for path in list(self._stamps):
            self._users[path] &= kept
            if not self._users[path]:
                del self._stamps[path], self._users[path]
        self._turns = deque(path for path in self._turns if path in self._stamps)
        self._notices.keep(self._stamps)

    def _notice(self) -> None:
        """Add what the kernel says to what is due."""
        noticed = self._notices.due()
        self._due = None if self._due is None or noticed is None else self._due | noticed

    def _look_at(self, paths: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for path in paths:
            now = stamp_of(path)
            if now != self._stamps.get(path, now):
                self._stamps[path] = now
                found |= self._users[path]
        return found
