"""What is not marked goes through as it is, byte for byte, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import BaseRoute, Match

from proxy.errors import AccessError, AccountsDownError, UpstreamError
from proxy.routes.exchange import ClientGoneError, Exchange
from proxy.sampling.eligibility import Reason
from proxy.upstream.headers import of_changed_body, passed_back, passed_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from proxy.routes.access import Access
    from proxy.telemetry.metrics import Metrics
    from proxy.upstream.client import UpstreamClient


class Everything(BaseRoute):
    """A route for whatever no other route takes: any path, line ends included, any method."""

    def __init__(self, app: ASGIApp) -> None:
        """Lead to an application."""
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match every request; the lifespan is the router's own."""
        return (Match.NONE if scope["type"] == "lifespan" else Match.FULL), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._app(scope, receive, send)


_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Passthrough:
    """An ASGI application that hands every request to the upstream."""

    def __init__(self, client: UpstreamClient, metrics: Metrics, access: Access) -> None:
        """Pass on through a client, what the accounts' rules let through."""
        self._client = client
        self._metrics = metrics
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a WebSocket is refused before its handshake."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        exchange = Exchange(scope, receive, send)
        if exchange.method not in _READING:  # it may generate text, in a dialect not marked here
            self._metrics.decided(None, reason=Reason.OTHER_PATH)
            try:
                self._access.enter_other(exchange.caller)
            except (AccessError, AccountsDownError) as error:
                self._metrics.refused(error)
                await exchange.refuse(error)
                return
        await self.forward(exchange)

    async def forward(
        self,
        exchange: Exchange,
        *,
        body: bytes | None = None,
        is_changed: bool = False,
        extra: Sequence[tuple[bytes, bytes]] = (),
        heard: Callable[[bytes], None] | None = None,
    ) -> bool:
        """Hand one request on and its answer back; return whether a good one went out whole.

        Args:
            exchange: The request.
            body: Its body where it has been read already.
            is_changed: Whether the body is another than the client's.
            extra: Headers to add to the answer.
            heard: Told each part of a good answer once the client has it; it then comes in plain.
        """
        relay = _Relay(self._client, self._metrics, exchange, heard)
        try:
            await exchange.while_connected(relay.run(body, extra, is_changed=is_changed))
        except ClientGoneError:
            return False
        return relay.is_whole


class _Relay:
    """One request on its way, and its answer.

    Attributes:
        is_whole: Whether a good answer went out to its last byte.
    """

    def __init__(
        self,
        client: UpstreamClient,
        metrics: Metrics,
        exchange: Exchange,
        heard: Callable[[bytes], None] | None,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._exchange = exchange
        self._heard = heard
        self.is_whole = False

    async def run(
        self, body: bytes | None, extra: Sequence[tuple[bytes, bytes]], *, is_changed: bool
    ) -> None:
        """Hand the request on and the answer back; a failure becomes the client's answer."""
        exchange = self._exchange
        content = await exchange.content() if body is None else body
        headers = passed_on(exchange.upstream_headers)
        if is_changed and body is not None:
            headers = of_changed_body(headers, len(body))
        if self._heard is not None:
            headers = [pair for pair in headers if pair[0] != b"accept-encoding"]
        try:
            async with self._client.stream(
                exchange.method, exchange.target, headers=headers, content=content
            ) as response:
                status = response.status_code
                is_good = response.is_success
                await exchange.start(status, [*passed_back(status, response.headers.raw), *extra])
                async for chunk in response.aiter_raw():
                    await exchange.write(chunk)
                    if self._heard is not None and is_good:
                        self._heard(chunk)
                await exchange.write(b"", more=False)
                self.is_whole = is_good
        except UpstreamError as error:
            self._metrics.failed(error)
            # Begun and without an end, an answer makes the server break the connection: the
            # client sees a cut, as it would without the proxy.
            if not exchange.is_started:
                await exchange.refuse(error)
