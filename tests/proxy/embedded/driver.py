"""Drives the embedded server in process, and models whose answers are known beforehand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from proxy.embedded.prompts import encode_text, join_messages
from proxy.embedded.server import create_app

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from starlette.applications import Starlette

    from proxy.embedded.language_model import ChatMessage, LanguageModel, TokenRow

END = "<|endoftext|>"
VOCAB = 257


def byte_tokenizer() -> Tokenizer:
    """One token a byte, ids 1 to 256 in the order of their stand-ins; 0 ends a text."""
    stand_ins = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {END: 0} | {stand_in: place for place, stand_in in enumerate(stand_ins, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


@dataclass
class ScriptedModel:
    """Says one text, byte by byte, and then ends; a gate can hold its steps."""

    script: list[int]
    tokenizer: Tokenizer = field(default_factory=byte_tokenizer)
    name: str = "scripted"
    tokenizer_path: Any = None
    vocab_size: int = VOCAB
    end_ids: frozenset[int] = frozenset({0})
    context_limit: int = 64
    max_rows: int = 8
    gate: threading.Semaphore | None = None
    steps: list[int] = field(default_factory=list)
    fails_at_step: int = -1
    _begun: dict[int, int] = field(default_factory=dict)

    @classmethod
    def saying(cls, text: str | bytes, **options: Any) -> ScriptedModel:
        tokenizer = byte_tokenizer()
        data = text.encode() if isinstance(text, str) else text
        from watermark.text import build_token_table  # noqa: PLC0415

        table = build_token_table(tokenizer, VOCAB).content
        return cls([table.index(bytes([byte])) for byte in data], tokenizer, **options)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return encode_text(self.tokenizer, text, start_id=0 if add_special_tokens else None)

    def render_chat(self, messages: Sequence[ChatMessage], **places: bool) -> str:
        return join_messages(messages, **places)

    def encode_chat(self, messages: Sequence[ChatMessage], **places: bool) -> list[int]:
        return self.encode(self.render_chat(messages, **places), add_special_tokens=True)

    def open_session(self) -> ScriptedModel:
        return self

    def logits(self, rows: Sequence[TokenRow]) -> NDArray[np.float64]:
        if self.gate is not None:
            assert self.gate.acquire(timeout=10), "the test left the gate closed"
        self.steps.append(len(rows))
        if len(self.steps) - 1 == self.fails_at_step:
            raise ArithmeticError("scripted")
        logits = np.full((len(rows), VOCAB), -30.0)
        for place, row in enumerate(rows):
            said = len(row.tokens) - self._begun.setdefault(id(row), len(row.tokens))
            logits[place, self.script[said] if said < len(self.script) else 0] = 30.0
        return logits

    def release(self, row: TokenRow) -> None:
        self._begun.pop(id(row), None)


@dataclass
class Served:
    """A running app and a client for what is not streamed."""

    app: Starlette
    client: httpx2.AsyncClient

    async def post(self, path: str, **body: Any) -> Any:
        response = await self.client.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    async def complete(self, prompt: Any = "The", **body: Any) -> Any:
        return await self.post("/v1/completions", prompt=prompt, **body)

    async def refused(self, path: str, body: Any, status: int = 400) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.client.post(path, content=content)
        assert response.status_code == status, response.text
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    async def stream(self, path: str, **body: Any) -> list[Any]:
        response = await self.client.post(path, json=body | {"stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return events(response.content)


def events(content: bytes) -> list[Any]:
    """The events of a whole stream, which must end properly."""
    parts = content.split(b"\n\n")
    assert parts[-2:] == [b"data: [DONE]", b""]
    return [json.loads(part.removeprefix(b"data: ")) for part in parts[:-2]]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread brings about."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the engine's thread sets no event for tests
            await asyncio.sleep(0.001)


def serve(
    model: LanguageModel, scenario: Callable[[Served], Awaitable[None]], **options: Any
) -> None:
    """Run a scenario against a server of its own."""

    async def main() -> None:
        app = create_app(model, clock=lambda: 1_800_000_000.0, **options)
        transport = httpx2.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://embedded") as client,
        ):
            await asyncio.wait_for(scenario(Served(app, client)), 60)

    asyncio.run(main())


class Exchange:
    """One request, message by message, whose client can leave at any time."""

    def __init__(self, app: Starlette, path: str, body: Any) -> None:
        self._app, self._sent = app, asyncio.Queue[Any]()
        self._incoming = asyncio.Queue[Any]()
        content = json.dumps(body).encode()
        self._incoming.put_nowait({"type": "http.request", "body": content, "more_body": False})
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._app(self._scope, self._incoming.get, self._send)

    async def _send(self, message: Any) -> None:
        self._sent.put_nowait(message)

    async def body_parts(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._sent.get()
            if message.get("body"):
                yield message["body"]
            if message["type"] == "http.response.body" and not message.get("more_body"):
                return

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})


def model_files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
