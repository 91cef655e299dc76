"""What the kernel says of changes to files, where it says anything.

Rule 1: a path is followed through every link on the way to it, so that the swap of one is noticed
as a change of the file is. Rule 2: where something was or may have been missed, everything is
due. Rule 3: what was followed before a fork is followed anew after it: of one queue each process
would read a part.

Not noticed is what no folder on the way sees: a change by another machine, through a second hard
link, by a mount. Whoever asks here also looks at the files by turns.

Source: inotify(7).
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, TypeAlias

if sys.platform == "linux":
    from inotify_simple import INotify, flags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Place: TypeAlias = tuple[str, str]
"""A folder, and a name in it."""

_MOST_LINKS: Final = 40  # as many as the kernel goes through


class Notices:
    """Paths, and which of them are to be looked at."""

    def __init__(self) -> None:
        """Begin with no path."""
        self._paths: set[str] = set()
        self._is_blind = sys.platform != "linux"
        self._forget()

    def follow(self, path: str) -> None:
        """Notice changes of a path from now on."""
        self._paths.add(path)
        if self._is_blind:
            return
        try:
            for folder, name in self._places(path):
                self._followers.setdefault((self._watch(folder), name), set()).add(path)
        except OSError:  # a folder is missing or closed to us, or there are too many queues
            self._is_blind = True

    def keep(self, paths: Iterable[str]) -> None:
        """Follow no others."""
        self._paths.intersection_update(paths)
        for followers in self._followers.values():
            followers.intersection_update(self._paths)

    def due(self) -> set[str] | None:
        """Return the paths that have changed since the last call; None where each may have."""
        if self._is_blind:
            return None
        if self._pid != os.getpid():
            self._start_anew()
            return None
        found: set[str] = set()
        for event in self._queue.read(timeout=0) if self._queue is not None else ():
            if not event.name:  # a folder itself went, or the queue ran over
                self._start_anew()
                return None
            found |= self._followers.get((event.wd, event.name), set())
        self._ways.clear()  # a link may lead elsewhere now
        for path in found:
            self.follow(path)
        return found

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._queue: INotify | None = None
        self._close: Callable[[], object] = _do_nothing
        self._watched: dict[str, int] = {}
        self._followers: dict[tuple[int, str], set[str]] = {}
        self._ways: dict[str, tuple[list[Place], str]] = {}

    def _start_anew(self) -> None:
        self._close()
        self._forget()
        for path in list(self._paths):
            self.follow(path)

    def _places(self, path: str) -> list[Place]:
        """Return every place where a change makes a path another file's, or changes the file."""
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - links stay
        if folder not in self._ways:  # very many files lie in one
            self._ways[folder] = _walk(folder)
        links, real = self._ways[folder]
        place = (real, name)
        if os.path.islink(os.path.join(*place)):  # noqa: PTH114, PTH118 - 10,000 at a start
            more, end = _walk(os.path.join(*place))  # noqa: PTH118
            return [*links, *more, os.path.split(end)]
        return [*links, place]

    def _watch(self, folder: str) -> int:
        """Return the descriptor of what is told of a folder, of which a move of itself is part."""
        if folder not in self._watched:
            if self._queue is None:
                self._queue = INotify()
                self._close = weakref.finalize(self, self._queue.close)
            for parent in PurePath(folder).parents:
                self._queue.add_watch(parent, _MOVES | flags.MASK_ADD)
            self._watched[folder] = self._queue.add_watch(folder, _CHANGES | _MOVES)
        return self._watched[folder]


if sys.platform == "linux":
    _MOVES: Final = flags.MOVE_SELF | flags.DELETE_SELF | flags.ONLYDIR
    _CHANGES: Final = (
        flags.ATTRIB | flags.MODIFY | flags.CREATE | flags.DELETE
        | flags.MOVED_FROM | flags.MOVED_TO
    )  # fmt: skip


def _do_nothing() -> None:
    """Close no queue."""


def _walk(path: str) -> tuple[list[Place], str]:
    """Return the links on the way to an absolute path, and where it leads in the end."""
    links: list[Place] = []
    real, parts = "/", path.split("/")[::-1]
    while parts and len(links) < _MOST_LINKS:
        part = parts.pop()
        if part == "..":
            real = os.path.dirname(real)  # noqa: PTH120
        elif part not in ("", "."):
            here = os.path.join(real, part)  # noqa: PTH118
            try:
                target = os.readlink(here)  # noqa: PTH115
            except OSError:  # no link, or nothing there
                real = here
            else:
                links.append((real, part))
                real = "/" if target.startswith("/") else real
                parts += target.split("/")[::-1]
    return links, real
