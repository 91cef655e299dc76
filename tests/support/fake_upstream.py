"""An upstream on a socket whose every byte the test decides.

It speaks HTTP/1.1 by hand, so that it can lie, dawdle, break off, and say when its client left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@dataclass
class Received:
    """One request as it came."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


class Gone(Exception):  # noqa: N818 - no error, an event
    """The client closed its connection."""


@dataclass
class Turn:
    """One request, and the means to answer it."""

    request: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self,
        body: bytes | dict[str, Any],
        *,
        status: int = 200,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(data)}"]
        if not any(name == "content-type" for name, _ in headers):
            lines.append("content-type: application/json")
        lines += [f"{name}: {value}" for name, value in headers]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def until_gone(self) -> None:
        """Wait for the client to close; whatever else it sends is a mistake."""
        assert await self.reader.read(1) == b""
        raise Gone

    def cut(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()


Behavior: TypeAlias = "Callable[[Turn], Awaitable[None]]"


@dataclass
class FakeUpstream:
    """Answers by its behavior, and remembers every request."""

    behave: Behavior
    requests: list[Received] = field(default_factory=list)
    open: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeUpstream]:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=2048)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()

    def asked(self, path: bytes = b"/v1/completions") -> list[Received]:
        return [one for one in self.requests if one.target == path]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, Gone):
            try:
                while (request := await _read(reader)) is not None:
                    self.requests.append(request)
                    await self.behave(Turn(request, reader, writer))
            finally:
                self.open -= 1
                self._writers.discard(writer)
                self.left.set()
                writer.close()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    head = await _head(reader)
    if head is None:
        return None
    line, *rest = head.split(b"\r\n")
    method, target, _ = line.split(b" ")
    headers = []
    for one in rest:
        name, _, value = one.partition(b":")
        headers.append((name.lower(), value.strip()))
    request = Received(method.decode(), target, headers, b"")
    if request.values(b"transfer-encoding"):
        request.body = await _chunks(reader)
    elif lengths := request.values(b"content-length"):
        request.body = await reader.readexactly(int(lengths[0]))
    return request


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    try:
        return (await reader.readuntil(b"\r\n\r\n"))[:-4]
    except asyncio.IncompleteReadError:
        return None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


def drafted(asked: Any) -> dict[str, Any]:
    """Return an honest answer to a draft, of a model that says "a", and "b" where that is banned.

    What little is left of the mass is spread over the lowest ids.
    """
    size, count = asked["max_tokens"], asked.get("logprobs", 0)
    letter = LETTER_A + (str(LETTER_A) in asked.get("logit_bias", {}))
    listed = {f"token_id:{letter}": -0.05}
    for token in range(1, count):
        listed[f"token_id:{token}"] = -9.0
    choice = {
        "token_ids": [letter] * size,
        "finish_reason": "length",
        "logprobs": {"top_logprobs": [listed] * size} if count else None,
    }
    return {"choices": [choice | {"index": place} for place in range(asked["n"])]}


LETTER_A = 65  # of `tests.support.servers.byte_tokenizer`
PROMPT_IDS = [1, 2, 3]


def honest(
    change: Callable[[Any, dict[str, Any]], Any] = lambda _asked, answer: answer,
) -> Behavior:
    """Return the behavior of an upstream that continues token ids.

    Args:
        change: Turns an honest draft into another answer.
    """

    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/models":
            await turn.answer({"data": [{"id": "m", "max_model_len": 4096}]})
        elif turn.request.target == b"/tokenize":
            await turn.answer({"tokens": PROMPT_IDS})
        else:
            asked = turn.request.json()
            answer = change(asked, drafted(asked))
            if answer is not None:
                await turn.answer(answer)

    return behave
