"""What is not marked goes through as it is, byte for byte, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import UpstreamError
from proxy.routes.exchange import ClientGoneError, Exchange
from proxy.upstream.headers import passed_back, passed_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from proxy.telemetry.metrics import Metrics
    from proxy.upstream.client import UpstreamClient


class Passthrough:
    """An ASGI application that hands every request to the upstream."""

    def __init__(self, client: UpstreamClient, metrics: Metrics) -> None:
        """Pass on through a client."""
        self._client = client
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self.forward(Exchange(scope, receive, send))

    async def forward(
        self,
        exchange: Exchange,
        *,
        body: bytes | None = None,
        extra: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Hand one request on and its answer back.

        Args:
            exchange: The request.
            body: Its body where it has been read already.
            extra: Headers to add to the answer.
        """
        try:
            await exchange.while_connected(self._relay(exchange, body, extra))
        except ClientGoneError:
            return

    async def _relay(
        self, exchange: Exchange, body: bytes | None, extra: Sequence[tuple[bytes, bytes]]
    ) -> None:
        content = exchange.body_stream() if body is None else body
        headers = passed_on(exchange.headers)
        try:
            async with self._client.stream(
                exchange.method, exchange.target, headers=headers, content=content
            ) as response:
                await exchange.start(
                    response.status_code, [*passed_back(response.headers.raw), *extra]
                )
                async for chunk in response.aiter_raw():
                    await exchange.write(chunk)
                await exchange.write(b"", more=False)
        except UpstreamError as error:
            self._metrics.failed(error)
            if exchange.is_started:
                raise  # the server breaks the connection: the client sees a cut, not an end
            await exchange.refuse(error)
