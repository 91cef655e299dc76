"""A proxy in front of an engine that marks, or does not, as a test has it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np

from proxy.app import create_app
from proxy.cli.servers import running
from proxy.config import LedgerConfig, NativeConfig, SelftestConfig
from tests.support.fake_upstream import FakeUpstream, Turn
from tests.support.servers import key_record, model_config, proxy_config
from watermark.keys import ForeignKey, KeyRecord, KeyRing, SecretKey
from watermark.keys.scope import Scope
from watermark.schemes import Positions, reader_of
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from watermark.ledger import Ledger

URL = "/v1/chat/completions"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
LETTERS = np.arange(66, 92, dtype=np.uint32)  # of the byte tokenizer: ASCII letters
KEY = 0x1234567890ABCDEF
TOKENS = 80


def own_key(unit: str) -> KeyRecord:
    """A key of ours that SGLang marks with."""
    return KeyRecord(
        key_id="test", unit=unit, scheme="sglang-native", secret=SecretKey("test", b"k" * 32)
    )


def engine_key(unit: str, scheme: str, **parameters: Any) -> KeyRecord:
    return KeyRecord(
        key_id="engine",
        unit=unit,
        scheme=scheme,
        scope="engine",
        context_width=1,
        parameters=tuple(parameters.items()),
        secret=ForeignKey("engine", [KEY]),
    )


def ring_of(record: KeyRecord) -> KeyRing:
    """Return keys in which an engine's own is in a scope of its own."""
    if not record.is_foreign:
        return KeyRing((record,))
    return KeyRing((record, key_record(record.unit)), (Scope(name="engine", models=("m",)),))


def say(record: KeyRecord, unit: TokenizerUnit) -> Callable[[Any], str]:
    """Return an engine that marks, over equally likely letters, with the key it is given.

    A context that returns is not marked again, so that its replies do not go round in circles.
    """
    reader, rng = reader_of(record), np.random.default_rng(0)

    def speak(_asked: Any) -> str:
        seen = set[tuple[int, ...]]()
        tokens = rng.choice(LETTERS, size=reader.context_width).tolist()
        for _ in range(TOKENS):
            context = np.array(tokens[-reader.context_width :], np.uint32)
            if tuple(context.tolist()) in seen:
                tokens.append(int(rng.choice(LETTERS)))
                continue
            seen.add(tuple(context.tolist()))
            contexts = np.tile(context, (len(LETTERS), 1))
            draws = reader.evaluate(Positions(contexts, LETTERS)).draws
            tokens.append(int(LETTERS[int(np.argmax(draws))]))
        return unit.decode(tokens)

    return speak


def deaf(unit: TokenizerUnit) -> Callable[[Any], str]:
    """Return an engine that ignores its switch."""
    rng = np.random.default_rng(1)
    return lambda _asked: unit.decode(rng.choice(LETTERS, size=TOKENS).tolist())


@dataclass(frozen=True)
class On:
    client: httpx2.AsyncClient
    upstream: FakeUpstream
    answers: list[bytes]

    async def post(self, **fields: Any) -> httpx2.Response:
        return await self.client.post(URL, json=CHAT | fields)

    async def metric(self, name: str) -> float:
        text = (await self.client.get("/watermark/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.split()[-1]) for line in lines)


@contextlib.asynccontextmanager
async def serving(
    tokenizer: Path,
    record: Callable[[str], KeyRecord],
    engine: str,
    speak: Callable[[Any], str] | None = None,
    *,
    share: float = 1.0,
    ledger: Callable[[], Ledger] | None = None,
    said: Callable[[Turn, str], tuple[bytes, str]] | None = None,
) -> AsyncIterator[On]:
    answers: list[bytes] = []
    cut = TokenizerUnit.read(tokenizer)
    engine_says = speak or deaf(cut)

    async def behave(turn: Turn) -> None:
        asked = turn.request.json()
        text = engine_says(asked)
        headers: tuple[tuple[str, str], ...]
        if said is not None:
            data, kind = said(turn, text)
            headers = (("content-type", kind),)
        elif asked.get("stream"):
            events = [{"choices": [{"index": 0, "delta": {"content": text[i : i + 7]}}]}
                      for i in range(0, len(text), 7)]  # fmt: skip
            data = b"".join(b"data: %s\r\n\r\n" % json.dumps(one).encode() for one in events)
            data += b": ping\n\ndata: [DONE]\n\n"
            headers = (("content-type", "text/event-stream"),)
        else:
            message = {"role": "assistant", "content": text, "novel": {"field": [1.50]}}
            body = {
                "choices": [{"index": 0, "message": message}],
                "usage": {"completion_tokens": 80},
            }
            data = json.dumps(body, indent=1).encode()
            headers = (("content-type", "application/json"),)
        answers.append(data)
        await turn.answer(data, headers=headers)

    model = model_config("m", tokenizer, native=NativeConfig(engine=engine))  # type: ignore[arg-type]
    kept = None if ledger is None else LedgerConfig(file="LEDGER.toml")
    async with FakeUpstream(behave).serving() as upstream:
        config = proxy_config(
            upstream.url, model, selftest=SelftestConfig(share=share), ledger=kept
        )
        app = create_app(config, ring_of(record(cut.unit_id)), open_ledger=ledger)
        async with (
            running(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield On(client, upstream, answers)
