"""One worker's watch over its files: looked at several times a second; SIGHUP asks at once.

Rule 1: the looks of all workers fall on the same instants, so that they change together. Rule 2:
reading happens in a thread; requests go on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


LOOK_SECONDS: Final = 0.5


class Watched(Protocol):
    """Something in force that is read again when its file has changed.

    Attributes:
        look_seconds: How often it is looked at.
    """

    look_seconds: float

    def step(self, *, is_asked: bool = False) -> None:
        """Take what has changed, or all where somebody asks."""
        ...


class InTurn:
    """Several watched files, looked at one after the other."""

    def __init__(self, *watched: Watched) -> None:
        """Look at these, in this order."""
        self._watched = watched
        self.look_seconds = min(one.look_seconds for one in watched)

    def step(self, *, is_asked: bool = False) -> None:
        """Take what has changed, or all where somebody asks."""
        for one in self._watched:
            one.step(is_asked=is_asked)


def until_next_look(look_seconds: float = LOOK_SECONDS) -> float:
    """Return the seconds until the clock shows the next multiple of `look_seconds`."""
    return look_seconds - time.time() % look_seconds  # noqa: TID251 - the command line


@contextlib.asynccontextmanager
async def watching(*watched: Watched) -> AsyncIterator[None]:
    """Keep what is in force as its files say; none of the watched waits for another."""
    asked = [asyncio.Event() for _ in watched]
    loop = asyncio.get_running_loop()
    takes_signals = threading.current_thread() is threading.main_thread()
    if takes_signals:
        loop.add_signal_handler(signal.SIGHUP, _set_all, asked)
    tasks = [
        asyncio.ensure_future(_watch(one, event)) for one, event in zip(watched, asked, strict=True)
    ]
    try:
        yield
    finally:
        if takes_signals:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _set_all(asked: list[asyncio.Event]) -> None:
    for one in asked:
        one.set()


async def _watch(reloader: Watched, asked: asyncio.Event) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), until_next_look(reloader.look_seconds))
        is_asked = asked.is_set()
        asked.clear()
        step = asyncio.to_thread(reloader.step, is_asked=is_asked)
        await asyncio.shield(asyncio.ensure_future(step))
