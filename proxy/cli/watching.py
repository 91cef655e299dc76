"""One worker's watch over its files: files are looked at twice a second, SIGHUP asks at once.

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
    """Something in force that is read again when its file has changed."""

    def step(self, *, is_asked: bool = False) -> None:
        """Take what has changed, or all where somebody asks."""
        ...


class InTurn:
    """Several watched files, looked at one after the other."""

    def __init__(self, *watched: Watched) -> None:
        """Look at these, in this order."""
        self._watched = watched

    def step(self, *, is_asked: bool = False) -> None:
        """Take what has changed, or all where somebody asks."""
        for one in self._watched:
            one.step(is_asked=is_asked)


def until_next_look() -> float:
    """Return the seconds until the clock shows the next multiple of `LOOK_SECONDS`."""
    return LOOK_SECONDS - time.time() % LOOK_SECONDS  # noqa: TID251 - the command line


@contextlib.asynccontextmanager
async def watching(reloader: Watched) -> AsyncIterator[None]:
    """Keep what is in force as its files say."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    takes_signals = threading.current_thread() is threading.main_thread()
    if takes_signals:
        loop.add_signal_handler(signal.SIGHUP, asked.set)
    task = asyncio.ensure_future(_watch(reloader, asked))
    try:
        yield
    finally:
        if takes_signals:
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _watch(reloader: Watched, asked: asyncio.Event) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), until_next_look())
        is_asked = asked.is_set()
        asked.clear()
        step = asyncio.to_thread(reloader.step, is_asked=is_asked)
        await asyncio.shield(asyncio.ensure_future(step))
