"""Replies as ASGI: JSON bodies, errors in OpenAI's form, and event streams that notice leaving."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response, StreamingResponse

from proxy.errors import BadRequestError, EmbeddedError, ProxyError
from watermark.wire.openai_answers import error_body
from watermark.wire.sse import json_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from proxy.embedded.engine import Engine, Ticket
    from watermark.wire.openai_answers import Dialect

JSON_TYPE: Final = "application/json"
_encoder = msgspec.json.Encoder()


def json_response(body: Any, status: int = 200) -> Response:  # noqa: ANN401 - any JSON value
    """Return `body` as JSON."""
    return Response(_encoder.encode(body), status_code=status, media_type=JSON_TYPE)


def error_response(error: ProxyError) -> Response:
    """Return the reply to an error of ours."""
    param = error.param if isinstance(error, BadRequestError) else None
    return json_response(error_body(str(error), kind=error.wire_type, param=param), error.status)


async def reply(request: Request, engine: Engine, ticket: Ticket, dialect: Dialect) -> Response:
    """Run a ticket and return its answer, streamed or whole."""
    if ticket.is_streamed:
        return EventStream(engine, ticket, dialect)
    engine.submit(ticket)
    watcher = asyncio.ensure_future(_until_disconnected(request))
    work = asyncio.ensure_future(ticket.finished())
    try:
        await asyncio.wait({watcher, work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=499)  # Nobody reads it; nginx's code for logs.
        work.result()
        choices = [generation.pieces for generation in ticket.generations]
        return json_response(dialect.whole(choices, ticket.usage()))
    finally:
        ticket.cancel()
        for task in (watcher, work):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, EmbeddedError):
                await task


async def _until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events of one ticket, which is cancelled however the response ends."""

    def __init__(self, engine: Engine, ticket: Ticket, dialect: Dialect) -> None:
        super().__init__(
            _events(ticket, dialect),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache"},
        )
        self._engine = engine
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the ticket while the client listens."""
        self._engine.submit(self._ticket)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.cancel()


async def _events(ticket: Ticket, dialect: Dialect) -> AsyncIterator[bytes]:
    try:
        for chunk in dialect.opening(ticket.usage()):
            yield dialect.encode(chunk)
        async for pieces in ticket.batches():
            by_choice = sorted(pieces, key=attrgetter("choice"))
            yield b"".join(
                dialect.encode(chunk)
                for choice, group in groupby(by_choice, key=attrgetter("choice"))
                for chunk in dialect.chunk(choice, list(group))
            )
        for chunk in dialect.closing(ticket.usage()):
            yield dialect.encode(chunk)
        yield dialect.END
    except EmbeddedError as error:
        yield json_event(error_body(str(error), kind=error.wire_type))
