"""`native`: what the engine is told, what passes, and who notices when it does not mark."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from proxy.app import create_app
from proxy.cli.servers import running
from proxy.config import LedgerConfig, NativeConfig, SelftestConfig
from tests.support.disks import Disk
from tests.support.fake_upstream import FakeUpstream, Turn
from tests.support.ledgers import by_kind, make_settings, open_ledger, rows_in
from tests.support.servers import key_record, model_config, proxy_config
from watermark.detection import Detector
from watermark.keys import ForeignKey, KeyRecord, KeyRing, SecretKey
from watermark.keys.scope import Scope
from watermark.ledger import Kind
from watermark.schemes import Positions, native_key, reader_of
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


def say(record: KeyRecord) -> Callable[[Any], str]:
    """Return an engine that marks, over equally likely letters, with the key it is given."""
    reader, rng = reader_of(record), np.random.default_rng(0)

    def speak(_asked: Any) -> str:
        tokens = rng.choice(LETTERS, size=reader.context_width).tolist()
        for _ in range(TOKENS):
            context = np.array(tokens[-reader.context_width :], np.uint32)
            contexts = np.tile(context, (len(LETTERS), 1))
            draws = reader.evaluate(Positions(contexts, LETTERS)).draws
            tokens.append(int(LETTERS[int(np.argmax(draws))]))
        return TOKENIZER[0].decode(tokens)

    return speak


def deaf() -> Callable[[Any], str]:
    """Return an engine that ignores its switch."""
    rng = np.random.default_rng(1)
    return lambda _asked: TOKENIZER[0].decode(rng.choice(LETTERS, size=TOKENS).tolist())


def failing(_asked: Any) -> str:
    raise ConnectionError


TOKENIZER: list[TokenizerUnit] = []


@pytest.fixture(autouse=True)
def _unit(tokenizer: Path) -> None:
    TOKENIZER[:] = [TokenizerUnit.read(tokenizer)]


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
) -> AsyncIterator[On]:
    answers: list[bytes] = []
    engine_says = speak or deaf()

    async def behave(turn: Turn) -> None:
        asked = turn.request.json()
        text = engine_says(asked)
        if asked.get("stream"):
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

    unit = TokenizerUnit.read(tokenizer).unit_id
    model = model_config("m", tokenizer, native=NativeConfig(engine=engine))  # type: ignore[arg-type]
    kept = None if ledger is None else LedgerConfig(file="LEDGER.toml")
    async with FakeUpstream(behave).serving() as upstream:
        config = proxy_config(
            upstream.url, model, selftest=SelftestConfig(share=share), ledger=kept
        )
        app = create_app(config, ring_of(record(unit)), open_ledger=ledger)
        async with (
            running(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield On(client, upstream, answers)


ENGINES = [
    pytest.param(
        "vllm",
        lambda unit: engine_key(unit, "vllm-gumbel"),
        ({"watermarking": False}, {"watermarking": True}),
        id="vllm",
    ),
    pytest.param(
        "sglang",
        own_key,
        (
            {"watermark": {"key": "0", "enabled": False}},
            {
                "watermark": {
                    "enabled": True,
                    "key": f"{native_key(SecretKey('test', b'k' * 32)):016x}",
                    "context_window": 2,
                }
            },
        ),
        id="sglang",
    ),
    pytest.param(
        "sglang",
        lambda unit: engine_key(unit, "sglang-gumbel"),
        ({}, {"watermark": {"enabled": True, "key": f"{KEY:016x}", "context_window": 1}}),
        id="sglang-server-key",
    ),
    pytest.param(
        "transformers",
        lambda unit: engine_key(unit, "hf-green-list", vocab_size=257),
        ({}, {}),
        id="transformers",
    ),
]


@pytest.mark.parametrize(("engine", "record", "fields"), ENGINES)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_engine_is_told_to_mark_and_its_bytes_pass(
    tokenizer: Path,
    engine: str,
    record: Callable[[str], KeyRecord],
    fields: tuple[dict[str, Any], dict[str, Any]],
    is_streamed: bool,
) -> None:
    said, told = fields

    async def work() -> None:
        async with serving(tokenizer, record, engine) as on:
            plain = {"temperature": 0.7, "min_p": 0.1, "stream": is_streamed}
            answer = await on.post(**said, **plain)
            (asked,) = on.upstream.asked(URL.encode())
            body = asked.json()
            if engine == "transformers":
                given = json.loads(body.pop("generation_config"))["watermarking_config"]
                assert given["hashing_key"] == KEY
                assert given["context_width"] == 1
            assert body == CHAT | plain | told
            assert answer.content == on.answers[0]
            key = record(TOKENIZER[0].unit_id).key_id
            assert answer.headers["x-watermark"] == f"marked; path=native; key={key}"
            assert asked.values(b"content-length") == [str(len(asked.body)).encode()]
            assert await on.metric("watermark_delivered_tokens_total") == (0 if is_streamed else 80)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"temperature": 0}, "temperature-zero"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "structured-output"),
        ({"n": 2}, "no-capable-path"),
    ],
)
def test_what_may_not_be_marked_passes_as_it_is(
    tokenizer: Path, fields: dict[str, Any], reason: str
) -> None:
    async def work() -> None:
        async with serving(tokenizer, own_key, "sglang") as on:
            answer = await on.post(**fields)
            assert answer.headers["x-watermark"] == f"unmarked; reason={reason}"
            assert on.upstream.asked(URL.encode())[0].json() == CHAT | fields

    asyncio.run(work())


def test_another_engine_than_the_keys_does_not_mark(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer, own_key, "vllm") as on:
            answer = await on.post()
            assert answer.headers["x-watermark"] == "unmarked; reason=no-capable-path"

    asyncio.run(work())


def test_an_engine_that_ignores_its_switch_raises_the_alarm_within_fifty_replies(
    tokenizer: Path,
) -> None:
    async def work() -> None:
        async with serving(tokenizer, own_key, "sglang") as on:
            for number in range(50):
                await on.post(stream=number % 2 == 0)
            deadline = asyncio.get_running_loop().time() + 10
            while await on.metric("watermark_selftest_replies_total") < 50:
                assert asyncio.get_running_loop().time() < deadline
            assert await on.metric("watermark_selftest_alarm") == 1

    asyncio.run(work())


def test_an_engine_that_marks_raises_none_and_its_text_is_detected(tokenizer: Path) -> None:
    record = own_key(TokenizerUnit.read(tokenizer).unit_id)

    async def work() -> list[str]:
        async with serving(tokenizer, own_key, "sglang", say(record)) as on:
            texts = [
                (await on.post()).json()["choices"][0]["message"]["content"] for _ in range(20)
            ]
            deadline = asyncio.get_running_loop().time() + 10
            while await on.metric("watermark_selftest_replies_total") < 20:
                assert asyncio.get_running_loop().time() < deadline
            assert await on.metric("watermark_selftest_alarm") == 0
            assert await on.metric("watermark_selftest_effect") > 1
            return texts

    texts = asyncio.run(work())
    assert Detector(record, TOKENIZER[0]).detect(texts[0]).log10_pvalue < -6
    other = replace(record, secret=SecretKey("test", b"w" * 32))
    assert Detector(other, TOKENIZER[0]).detect_pooled(texts).log10_pvalue > -4


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_ledger_has_what_the_engine_marked(
    tokenizer: Path, tmp_path: Path, is_streamed: bool
) -> None:
    settings, disk = make_settings(tmp_path), Disk(f"native-{is_streamed}")

    async def work() -> bytes:
        opener = lambda: open_ledger(settings, disk)
        async with serving(tokenizer, own_key, "sglang", ledger=opener) as on:
            return (await on.post(stream=is_streamed)).content

    asyncio.run(work())
    rows = by_kind(rows_in(settings, disk))
    (begun,), (ended,) = rows[Kind.BEGIN], rows[Kind.END]
    assert begun.reply == ended.reply
    assert ended.n_tokens == TOKENS


def test_a_key_that_the_ledger_cannot_fingerprint_does_not_mark(
    tokenizer: Path, tmp_path: Path
) -> None:
    settings, disk = make_settings(tmp_path), Disk("native-foreign")

    async def work() -> None:
        record = lambda unit: engine_key(unit, "vllm-gumbel")
        opener = lambda: open_ledger(settings, disk)
        async with serving(tokenizer, record, "vllm", ledger=opener) as on:
            answer = await on.post()
            assert answer.headers["x-watermark"] == "unmarked; reason=no-capable-path"

    asyncio.run(work())


def test_an_upstream_that_fails_is_no_marked_reply(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer, own_key, "sglang", failing) as on:
            answer = await on.post()
            assert answer.status_code == 502
            assert await on.metric("watermark_selftest_replies_total") == 0

    asyncio.run(work())


def test_no_key_of_an_engine_is_sampled_with(tokenizer: Path) -> None:
    """A model whose engine is not said to mark, and a key that only an engine can use."""

    async def work() -> None:
        async with serving(tokenizer, own_key, "none") as on:
            answer = await on.post()
            assert answer.headers["x-watermark"] == "unmarked; reason=no-capable-path"

    asyncio.run(work())
