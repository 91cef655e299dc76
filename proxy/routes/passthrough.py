"""What is not marked goes through as it is, byte for byte, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import BaseRoute, Match

from proxy.errors import (
    AccessError,
    AccountsDownError,
    BadRequestError,
    UnmarkableError,
    UpstreamError,
    UpstreamProtocolError,
    failure_of,
)
from proxy.routes.exchange import ClientGoneError, Exchange
from proxy.routes.ingress import may_be_json
from proxy.routes.packing import FORM, PARTS, check_charset, codings_of, kinds_of
from proxy.sampling.eligibility import Reason
from proxy.upstream.headers import (
    is_event_stream,
    is_open_stream,
    of_changed_body,
    of_decoded,
    passed_back,
    passed_on,
)
from watermark.errors import WireError
from watermark.wire.failures import failure_event
from watermark.wire.openai_requests import DialectName
from watermark.wire.reasoning import trace_filter
from watermark.wire.sse import EVENT_ENDS, LONGEST_END

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from httpx2 import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from proxy.routes.marking import Marking
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
# These count or cut text, and give none.
_COUNTING: Final = frozenset(
    {"/v1/messages/count_tokens", "/v1/responses/input_tokens", "/tokenize", "/detokenize"}
)


class Passthrough:
    """An ASGI application that hands every request to the upstream."""

    def __init__(self, client: UpstreamClient, marking: Marking) -> None:
        """Pass on through a client, what the operator's and the accounts' rules let through."""
        self._client = client
        self._marking = marking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a WebSocket is refused before its handshake."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        exchange = Exchange(scope, receive, send)
        try:
            body, is_changed = await self._enter(exchange, scope["path"])
        except ClientGoneError:
            return
        except (BadRequestError, AccessError, AccountsDownError) as error:
            self._marking.metrics.refused(error)
            await exchange.refuse(error)
            return
        try:
            await self.forward(exchange, body=body, is_changed=is_changed)
        except BadRequestError as error:  # found in a form while it passed
            self._marking.metrics.refused(error)
            if not exchange.is_started:
                await exchange.refuse(error)

    async def _enter(self, exchange: Exchange, path: str) -> tuple[bytes | None, bool]:
        """Let a request in; return its body where it was read, and whether it was changed.

        Raises:
            BadRequestError: A field is not the client's to set, the path is not served, or the
                body is packed in a way that is not known.
            AccessError: His account's rules cannot be checked there, or a quota is used up.
            AccountsDownError: The counters cannot be used.
            ClientGoneError: The client hung up.
        """
        if exchange.method in _READING:
            return None, False
        is_counting = path in _COUNTING
        if not is_counting:  # it may generate text, in a dialect not marked here
            self._marking.metrics.decided(None, reason=Reason.OTHER_PATH)
            if Reason.OTHER_PATH in self._marking.refused:
                raise UnmarkableError(Reason.OTHER_PATH)
        self._marking.access.enter_other(exchange.caller, is_counting=is_counting)
        ingress, kinds = self._marking.ingress, kinds_of(exchange.headers)
        if any(b"json" in kind for kind in kinds):
            check_charset(exchange.headers)
        is_read = _is_form(kinds, is_packed=bool(codings_of(exchange.headers)))
        wanted = (lambda _begun: True) if is_read else may_be_json
        body = await exchange.body_if(wanted, self._marking.max_body_bytes)
        if body is None:
            return None, False
        ingress.check_form(kinds, body)
        admitted = ingress.admit(body)
        return admitted, admitted is not body or exchange.is_unpacked

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
        relay = _Relay(self._client, self._marking, exchange, heard)
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
        marking: Marking,
        exchange: Exchange,
        heard: Callable[[bytes], None] | None,
    ) -> None:
        self._client = client
        self._metrics = marking.metrics
        self._ingress = marking.ingress
        self._exchange = exchange
        self._heard = heard
        self._withheld = _withheld(exchange)
        self._is_stream = False  # of events, to which one more could be added
        self._tail = b""
        self.is_whole = False

    async def run(
        self, body: bytes | None, extra: Sequence[tuple[bytes, bytes]], *, is_changed: bool
    ) -> None:
        """Hand the request on and the answer back; a failure becomes the client's answer."""
        exchange = self._exchange
        content = self._admitted(await exchange.content()) if body is None else body
        headers = passed_on(exchange.upstream_headers)
        if is_changed and body is not None:
            headers = of_changed_body(headers, len(body))
        if self._heard is not None or self._withheld is not None:
            # Where nothing is said every coding is welcome (RFC 9110, 12.5.3).
            kept = [pair for pair in headers if pair[0] != b"accept-encoding"]
            headers = [*kept, (b"accept-encoding", b"identity")]
        try:
            async with self._client.stream(
                exchange.method, exchange.target, headers=headers, content=content
            ) as response:
                await self._hand_back(response, extra)
        except UpstreamError as error:
            self._metrics.failed(error)
            await self._break_off(error)

    def _admitted(self, content: AsyncIterator[bytes] | None) -> AsyncIterator[bytes] | None:
        """Return a body that passes as it comes, and is looked into meanwhile if it is a form."""
        kinds = kinds_of(self._exchange.headers)
        is_form = any(kind.startswith(PARTS) for kind in kinds)
        return self._ingress.watched(content) if content is not None and is_form else content

    async def _hand_back(self, response: Response, extra: Sequence[tuple[bytes, bytes]]) -> None:
        status, is_good = response.status_code, response.is_success
        withheld = self._withheld if is_good else None
        parts: AsyncIterator[bytes]
        if withheld is None:
            back, parts = passed_back(status, response.headers.raw), response.aiter_raw()
        else:
            back = of_decoded(status, response.headers.raw)
            parts = _without_trace(response, withheld)
        self._is_stream = is_open_stream(back)
        if withheld is None or self._is_stream:
            await self._exchange.start(status, [*back, *extra])
        async for chunk in parts:
            if not self._exchange.is_started:  # it had to be read whole, and the status waited
                await self._exchange.start(status, [*back, *extra])
            await self._exchange.write(chunk)
            self._tail = (self._tail + chunk)[-LONGEST_END:]
            if self._heard is not None and is_good:
                self._heard(chunk)
        await self._exchange.write(b"", more=False)
        self.is_whole = is_good

    async def _break_off(self, error: UpstreamError) -> None:
        """Tell the client that the upstream failed, where there is a way to.

        Within an event, or within any other body, there is none: begun and without an end, an
        answer makes the server break the connection, as the client would see without the proxy.
        """
        if not self._exchange.is_started:
            await self._exchange.refuse(error)
        elif self._is_stream and (not self._tail or self._tail.endswith(EVENT_ENDS)):
            dialect = self._exchange.dialect
            event = failure_event(dialect, failure_of(error), sequence_number=0)
            await self._exchange.write(event, more=False)


def _is_form(kinds: Sequence[bytes], *, is_packed: bool) -> bool:
    """Return whether a body has to be read whole: a form, but for one that is read as it passes."""
    looked_into = (FORM, PARTS) if is_packed else (FORM,)
    return any(kind.startswith(looked_into) for kind in kinds)


def _withheld(exchange: Exchange) -> DialectName | None:
    """Return the dialect in which a reasoning trace is to be left out, None for none."""
    if exchange.caller is None or exchange.caller.rules.reasoning:
        return None
    return DialectName.of_path(exchange.path)


async def _without_trace(response: Response, dialect: DialectName) -> AsyncIterator[bytes]:
    """Yield an answer without its reasoning trace.

    Raises:
        UpstreamProtocolError: It cannot be read, so nobody knows what is in it.
    """
    is_streamed = is_event_stream(response.headers.raw)
    left_out = trace_filter(dialect, is_streamed=is_streamed)
    try:
        async for chunk in response.aiter_bytes():
            if part := left_out.feed(chunk):
                yield part
        if part := left_out.finish():
            yield part
    except WireError as err:
        raise UpstreamProtocolError(
            f"the upstream's answer cannot be read ({err}), and this account gets no reasoning "
            "traces; allow them, or mend the upstream"
        ) from err
