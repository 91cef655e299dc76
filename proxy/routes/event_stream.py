"""Events on their way to a client: whole ones, and comments where there is silence.

Whatever stands between proxy and client may cut a connection that is silent for too long, and a
reply that is chosen takes longer to begin than one that is not. Every write ends at an event's
end, so that a comment between two writes is between two events.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from watermark.wire.sse import CONTENT_TYPE, KEEP_ALIVE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from proxy.routes.exchange import Exchange

    Pairs = Sequence[tuple[bytes, bytes]]

_HEADERS: Final = ((b"content-type", CONTENT_TYPE), (b"cache-control", b"no-cache"))


class EventStream:
    """The events of one answer.

    Attributes:
        n_events: How many were written.
    """

    def __init__(
        self, exchange: Exchange, extra: Callable[[], Pairs], *, keep_alive_s: float
    ) -> None:
        """Write to a client; the first write begins the answer.

        Args:
            exchange: The client.
            extra: Returns the headers besides the stream's own, when the answer begins.
            keep_alive_s: Longest silence before a comment is sent; 0 for none.
        """
        self._exchange = exchange
        self._extra = extra
        self._keep_alive_s = keep_alive_s
        self._lock = asyncio.Lock()
        self._due = 0.0
        self.n_events = 0

    async def write(self, events: Sequence[bytes], *, more: bool = True) -> bytes:
        """Send some events at once, and return their bytes."""
        data = b"".join(events)
        self.n_events += len(events)
        if data or not more:
            await self._send(data, more=more)
        return data

    @contextlib.asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send comments into silences while the block runs."""
        if not self._keep_alive_s:
            yield
            return
        self._put_off()
        pulse = asyncio.ensure_future(self._pulse())
        try:
            yield
        finally:
            pulse.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pulse

    async def _pulse(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left = self._due - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            else:
                await self._send(KEEP_ALIVE)

    async def _send(self, data: bytes, *, more: bool = True) -> None:
        async with self._lock:
            if not self._exchange.is_started:
                await self._exchange.start(200, [*_HEADERS, *self._extra()])
            await self._exchange.write(data, more=more)
            self._put_off()

    def _put_off(self) -> None:
        self._due = asyncio.get_running_loop().time() + self._keep_alive_s
