"""The door: who asks is known, refused or let in before any route, and put out when banned.

Rule 1: a refusal is in the client's dialect and costs no look at the body. Rule 2: a call under
way is put to the test again whenever the accounts change; who is not served any more loses it at
once: an event stream ends with an error event and without an end of its own, anything else breaks
off. Rule 3: what the proxy itself answers (`/watermark/`) has its own rules.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from proxy.accounts.book import CALLER_SCOPE
from proxy.errors import AccessError, AccountsDownError, ProxyError
from proxy.middleware.refusals import refusal_event, refusal_messages
from proxy.upstream.headers import is_open_stream

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from proxy.accounts.book import AccountHolder, Caller
    from proxy.accounts.usage import UsageStore
    from proxy.telemetry.metrics import Metrics

_LAST_WORDS_S: Final = 0.5  # for a client that does not read
_OWN: Final = "/watermark/"


@dataclass(eq=False, slots=True)
class _Call:
    """One request under way, and how far its answer is."""

    headers: list[tuple[bytes, bytes]]
    peer: str
    path: str
    send: Send
    refused: asyncio.Future[ProxyError]
    is_started: bool = False
    is_ended: bool = False
    is_open_stream: bool = False
    is_cut: bool = False
    tail: bytes = field(default=b"", repr=False)

    async def relay(self, message: Message) -> None:
        """Send a part of the answer, and note what it was; after the last words nothing goes."""
        if self.is_cut:
            return
        if message["type"] == "http.response.start":
            self.is_started = True
            self.is_open_stream = is_open_stream(message["headers"])
        elif not message.get("more_body", False):
            self.is_ended = True
        else:
            self.tail = message.get("body", b"")[-2:] or self.tail
        await self.send(message)

    async def end(self, error: ProxyError) -> None:
        """Answer, or end what has begun; what cannot be ended in form breaks off."""
        self.is_cut = True
        if not self.is_started:
            for message in refusal_messages(self.path, error):
                await self.send(message)
        elif self.is_open_stream and not self.is_ended:
            apart = b"" if self.tail in {b"", b"\n\n"} else b"\n\n"
            body = apart + refusal_event(self.path, error)
            await self.send({"type": "http.response.body", "body": body, "more_body": False})


class Gate:
    """An ASGI application in front of another."""

    def __init__(
        self, app: ASGIApp, accounts: AccountHolder, usage: UsageStore, metrics: Metrics
    ) -> None:
        """Guard an application.

        Args:
            app: What is behind the door.
            accounts: Who may pass.
            usage: Who has been served before.
            metrics: The counters.
        """
        self._app = app
        self._accounts = accounts
        self._usage = usage
        self._metrics = metrics
        self._calls: set[_Call] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            self._listen()
        if scope["type"] != "http" or scope["path"].startswith(_OWN):
            await self._app(scope, receive, send)
            return
        call = _Call(
            headers=[(name.lower(), value) for name, value in scope["headers"]],
            peer=(scope.get("client") or ("",))[0],
            path=scope["path"],
            send=send,
            refused=asyncio.get_running_loop().create_future(),
        )
        try:
            caller = self._admit(call)
        except (AccessError, AccountsDownError) as error:
            self._metrics.refused(error)
            await call.end(error)
            return
        await self._serve(call, {**scope, CALLER_SCOPE: caller}, receive)

    def _admit(self, call: _Call) -> Caller:
        """Return who calls.

        Raises:
            AccessError: He is not served.
            AccountsDownError: It cannot be told whether he was served before.
        """
        book = self._accounts.current
        caller = book.identify(call.headers, call.peer)
        book.check(caller, self._usage.was_served)
        if caller.name:
            self._usage.mark_served(caller.name)
        return caller

    async def _serve(self, call: _Call, scope: Scope, receive: Receive) -> None:
        """Run the application until it has answered, or the caller is put out."""
        self._calls.add(call)
        task: asyncio.Future[Any] = asyncio.ensure_future(self._app(scope, receive, call.relay))
        try:
            await asyncio.wait({task, call.refused}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return
            task.cancel()  # it may take a while to put away what it has open upstream
            error = call.refused.result()
            self._metrics.refused(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(call.end(error), _LAST_WORDS_S)
        finally:
            self._calls.discard(call)
            await _cancelled(task)

    def _listen(self) -> None:
        """Hear of changes of the accounts, which other threads make."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                loop.call_soon_threadsafe(self.recheck)

        self._accounts.on_change = tell

    def recheck(self) -> None:
        """Put out every call whose caller the accounts in force refuse."""
        for call in self._calls:
            try:
                self._admit(call)
            except (AccessError, AccountsDownError) as error:
                if not call.refused.done():
                    call.refused.set_result(error)


async def _cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it is done; what it says on the way out is not asked for."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
