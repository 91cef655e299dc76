"""One worker's watch over its keys: files are looked at twice a second, SIGHUP asks at once.

Rule 1: the looks of all workers fall on the same instants, so that they change together. Rule 2:
reading happens in a thread; requests go on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.cli.reloading import Reloader

LOOK_SECONDS: Final = 0.5


def until_next_look() -> float:
    """Return the seconds until the clock shows the next multiple of `LOOK_SECONDS`."""
    return LOOK_SECONDS - time.time() % LOOK_SECONDS  # noqa: TID251 - the command line


@contextlib.asynccontextmanager
async def watching(reloader: Reloader) -> AsyncIterator[None]:
    """Keep the keys as their file says."""
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


async def _watch(reloader: Reloader, asked: asyncio.Event) -> None:
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), until_next_look())
        is_asked = asked.is_set()
        asked.clear()
        step = asyncio.to_thread(reloader.step, is_asked=is_asked)
        await asyncio.shield(asyncio.ensure_future(step))
