"""One request on its way through the proxy: its body, its caller, and whether the client stays."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.accounts.book import CALLER_SCOPE, credential_of
from proxy.errors import (
    BodyTooLargeError,
    ProxyError,
    QuotaError,
    UpstreamStatusError,
    failure_of,
)
from proxy.routes.packing import codings_of, unpacked
from watermark.wire.failures import dialect_of_path, failure_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

    from starlette.types import Receive, Scope, Send

    from proxy.accounts.book import Caller

DISCLOSURE_HEADER: Final = b"x-watermark"
EVERYBODY: Final = "*"
_JSON: Final = (b"content-type", b"application/json")
_UNAVAILABLE: Final = 503
LEADING: Final = b" \t\r\n\x00"  # blanks in any encoding
_RETRY: Final = (b"retry-after", b"10")  # an operator's edit is seen within a second
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})  # RFC 9112, 6.3


class ClientGoneError(Exception):
    """The client hung up; there is nobody left to answer."""


class Exchange:
    """The ASGI side of one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wrap one ASGI call."""
        self.headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.dialect = dialect_of_path(self.path)
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope["query_string"]
        self.target = raw_path.split(b"?")[0] + (b"?" + query if query else b"")
        self.caller: Caller | None = scope.get(CALLER_SCOPE)
        self._receive = receive
        self._send = send
        self._body_ended = asyncio.Event()
        self._begun = bytearray()  # read of the body, and not yet handed out
        self.is_unpacked = False  # whether the body came packed, and goes on plain
        self.is_started = False

    @property
    def upstream_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that the upstream is to see: the key that the account has there."""
        return self.headers if self.caller is None else self.caller.upstream_headers(self.headers)

    async def body_stream(self) -> AsyncIterator[bytes]:
        """Yield the request's body as it comes.

        Raises:
            ClientGoneError: The client hung up.
        """
        begun, self._begun = bytes(self._begun), bytearray()
        if begun:
            yield begun
        while not self._body_ended.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if not message.get("more_body", False):
                self._body_ended.set()
            if message.get("body"):
                yield message["body"]

    async def body_if(
        self, is_wanted: Callable[[bytes], bool | None], max_bytes: int
    ) -> bytes | None:
        """Return the whole body if it begins as is wanted, else None and leave it to `content`.

        A packed one is wanted where it is unpacked; else it goes on packed.

        Args:
            is_wanted: Decides by the beginning without leading blanks; None asks for more of it,
                and an end takes it for wanted.
            max_bytes: Largest body that is wanted.

        Raises:
            BodyTooLargeError: It is wanted, and larger than allowed.
            UnreadableBodyError: It is packed in a way that is not known.
            ClientGoneError: The client hung up.
        """
        codings = codings_of(self.headers)
        if codings:
            packed = await self._whole(max_bytes)
            plain = unpacked(packed, codings, max_bytes)
            if is_wanted(plain.lstrip(LEADING)) is not False:
                return self._plain(plain)
            self._begun = bytearray(packed)
            return None
        begun = bytearray()
        head, verdict = b"", None
        async for part in self.body_stream():
            begun += part
            head = (head + part).lstrip(LEADING)
            verdict = is_wanted(head)
            if verdict is not None:
                break
            _check_size(len(begun), max_bytes)
        self._begun = begun
        return await self.body(max_bytes) if begun and verdict is not False else None

    async def content(self) -> AsyncIterator[bytes] | None:
        """Return the request's body as it comes, None where no header announces one.

        Raises:
            ClientGoneError: The client hung up.
        """
        if any(name in _FRAMING for name, _ in self.headers):
            return self.body_stream()
        async for _ in self.body_stream():
            pass
        return None

    async def body(self, max_bytes: int) -> bytes:
        """Return the whole body, unpacked where it came packed.

        Raises:
            BodyTooLargeError: It is larger than allowed.
            UnreadableBodyError: It is packed in a way that is not known.
            ClientGoneError: The client hung up.
        """
        body = await self._whole(max_bytes)
        codings = codings_of(self.headers)
        return self._plain(unpacked(body, codings, max_bytes)) if codings else body

    def _plain(self, body: bytes) -> bytes:
        """Return an unpacked body, whose headers say so from now on."""
        self.is_unpacked = True
        self.headers = [pair for pair in self.headers if pair[0].lower() != b"content-encoding"]
        return body

    async def _whole(self, max_bytes: int) -> bytes:
        parts = bytearray()
        async for part in self.body_stream():
            parts += part
            _check_size(len(parts), max_bytes)
        return bytes(parts)

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work; cancel it, and with it everything upstream, when the client leaves.

        Raises:
            ClientGoneError: The client left first.
        """
        task = asyncio.ensure_future(work)
        watcher = asyncio.ensure_future(self._until_gone())
        try:
            await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientGoneError
            await task
        finally:
            for one in (task, watcher):
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await one

    async def _until_gone(self) -> None:
        await self._body_ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the status line and the headers; a date is added where there is none."""
        self.is_started = True
        if not any(name == b"date" for name, _ in headers):
            headers = [*headers, (b"date", formatdate(usegmt=True).encode())]
        await self._send(
            {"type": "http.response.start", "status": status, "headers": list(headers)}
        )

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(
        self, status: int, data: bytes, headers: Sequence[tuple[bytes, bytes]] = (_JSON,)
    ) -> None:
        """Send a whole answer."""
        await self.start(status, [*headers, (b"content-length", str(len(data)).encode())])
        await self.write(data, more=False)

    async def refuse(self, error: ProxyError) -> None:
        """Answer with an error; an upstream's refusal keeps its status, headers and body."""
        if isinstance(error, UpstreamStatusError):
            await self.answer(error.upstream_status, error.body, error.headers)
        else:
            headers = [_JSON, _RETRY] if error.status == _UNAVAILABLE else [_JSON]
            if isinstance(error, QuotaError):
                headers.append((b"retry-after", str(error.retry_after_s).encode()))
            body = failure_body(self.dialect, failure_of(error))
            await self.answer(error.status, msgspec.json.encode(body), headers)

    @property
    def account(self) -> str:
        """The digest of the caller's API key, as the config and the keys' scopes name accounts."""
        return caller_digest(self.headers) or ""

    def is_from(self, callers: frozenset[str]) -> bool:
        """Return whether the caller is among these digests; `*` stands for everybody."""
        return is_trusted(self.headers, callers)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise BodyTooLargeError(
            f"the request body exceeds {max_bytes} bytes; send less, or raise server.max_body_bytes"
        )


def is_trusted(headers: Iterable[tuple[bytes, bytes]], callers: frozenset[str]) -> bool:
    """Return whether a request's API key is among these digests; `*` stands for everybody."""
    return EVERYBODY in callers or caller_digest(headers) in callers


def caller_digest(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the digest by which the config names a caller, None without an API key."""
    credential = credential_of(headers)
    return None if credential is None else f"sha256:{hashlib.sha256(credential).hexdigest()}"
