"""`native`: what the engine is told, what passes, and who notices when it does not mark."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.config import NativeConfig, SelftestConfig
from tests.support.asgi import proxied
from tests.support.disks import Disk
from tests.support.fake_upstream import honest
from tests.support.ledgers import by_kind, make_settings, open_ledger, rows_in
from tests.support.native import CHAT, KEY, TOKENS, URL, engine_key, own_key, say, serving
from watermark.detection import Detector
from watermark.keys import KeyRecord, SecretKey
from watermark.ledger import Kind, engine_context_key, unpack_fingerprints
from watermark.schemes import native_key
from watermark.seeding import ContextPRF
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def unit(tokenizer: Path) -> TokenizerUnit:
    return TokenizerUnit.read(tokenizer)


def failing(_asked: Any) -> str:
    raise ConnectionError


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
            key = record(TokenizerUnit.read(tokenizer).unit_id).key_id
            assert answer.headers["x-watermark"] == f"marked; path=native; key={key}"
            assert asked.values(b"content-length") == [str(len(asked.body)).encode()]
            assert asked.values(b"accept-encoding") == [b"identity"]
            assert await on.metric("watermark_delivered_tokens_total") == TOKENS

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
def test_what_may_not_be_marked_passes_with_the_engine_switched_off(
    tokenizer: Path, fields: dict[str, Any], reason: str
) -> None:
    """An engine that marks whatever says nothing would mark the arguments of a call."""
    off: dict[str, dict[str, Any]] = {
        "vllm": {"watermarking": False},
        "sglang": {"watermark": {"enabled": False}},
    }

    async def work(engine: str) -> None:
        async with serving(tokenizer, own_key, engine) as on:
            answer = await on.post(**fields)
            if engine == "sglang":
                assert answer.headers["x-watermark"] == f"unmarked; reason={reason}"
            assert answer.content == on.answers[0]
            assert on.upstream.asked(URL.encode())[0].json() == CHAT | fields | off[engine]

    for engine in off:
        asyncio.run(work(engine))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", CHAT | {"max_tokens": 9, "system": "Be brief.", "metadata": {}}),
        ("/v1/responses", {"model": "m", "input": "?", "instructions": "Be brief."}),
    ],
)
def test_a_request_keeps_its_dialect_and_its_digits(
    tokenizer: Path, path: str, body: dict[str, Any]
) -> None:
    async def work() -> None:
        record = lambda unit: engine_key(unit, "vllm-gumbel")
        async with serving(tokenizer, record, "vllm") as on:
            data = json.dumps(body)[:-1] + f', "temperature": 0.70, "odd": {2**70}}}'
            answer = await on.client.post(path, content=data)
            assert answer.headers["x-watermark"] == "marked; path=native; key=engine"
            (asked,) = on.upstream.asked(path.encode())
            assert asked.json() == json.loads(data) | {"watermarking": True}
            assert b"0.70" in asked.body
            assert answer.content == on.answers[0]

    asyncio.run(work())


ASKED: dict[str, dict[str, Any]] = {
    URL: CHAT,
    "/v1/completions": {"model": "m", "prompt": "?", "max_tokens": 90},
    "/v1/responses": {"model": "m", "input": "?"},
    "/v1/messages": CHAT | {"max_tokens": 90},
}


@pytest.mark.parametrize(
    ("engine", "record", "deaf_to"),
    [
        ("vllm", lambda unit: engine_key(unit, "vllm-gumbel"), set()),
        ("sglang", own_key, {"/v1/responses", "/v1/messages"}),
        (
            "transformers",
            lambda unit: engine_key(unit, "hf-green-list", vocab_size=257),
            {"/v1/messages"},
        ),
    ],
)
def test_a_dialect_in_which_an_engine_reads_no_switch_is_not_said_to_be_marked(
    tokenizer: Path, engine: str, record: Callable[[str], KeyRecord], deaf_to: set[str]
) -> None:
    """The engine takes what it does not know, and answers unmarked with a 200."""

    async def work() -> None:
        async with serving(tokenizer, record, engine) as on:
            for path, body in ASKED.items():
                answer = await on.client.post(path, json=body)
                said = answer.headers["x-watermark"]
                if path in deaf_to:
                    assert said == "unmarked; reason=no-capable-path"
                else:
                    assert said.startswith("marked; path=native")
                assert answer.content == on.answers[-1]
            n_marked = len(ASKED) - len(deaf_to)
            counted = 'watermark_decisions_total{key="%s",model="m",path="native",reason="marked"}'
            key = record(TokenizerUnit.read(tokenizer).unit_id).key_id
            assert await on.metric(counted % key) == n_marked
            assert await on.metric("watermark_delivered_tokens_total") == TOKENS * n_marked

    asyncio.run(work())


def test_another_engine_than_the_keys_does_not_mark(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer, own_key, "vllm") as on:
            answer = await on.post()
            assert answer.headers["x-watermark"] == "unmarked; reason=no-capable-path"

    asyncio.run(work())


def test_an_engine_that_ignores_its_switch_raises_the_alarm_within_fifty_delivered_replies(
    tokenizer: Path,
) -> None:
    async def work() -> None:
        share = SelftestConfig().share
        async with serving(tokenizer, own_key, "sglang", share=share) as on:
            for number in range(50):
                await on.post(stream=number % 2 == 0)
            deadline = asyncio.get_running_loop().time() + 10
            while await on.metric("watermark_selftest_replies_total") < 50:
                assert asyncio.get_running_loop().time() < deadline
            assert await on.metric("watermark_selftest_alarm") == 1

    asyncio.run(work())


def test_none_is_checked_where_none_shall_be(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer, own_key, "sglang", share=0.0) as on:
            await on.post()
            await asyncio.sleep(0.3)
            assert await on.metric("watermark_delivered_tokens_total") == TOKENS
            assert await on.metric("watermark_selftest_replies_total") == 0

    asyncio.run(work())


def test_an_engine_that_marks_raises_none_and_its_text_is_detected(
    tokenizer: Path, unit: TokenizerUnit
) -> None:
    record = own_key(unit.unit_id)

    async def work() -> list[str]:
        async with serving(tokenizer, own_key, "sglang", say(record, unit)) as on:
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
    assert Detector(record, unit).detect(texts[0]).log10_pvalue < -6
    other = replace(record, secret=SecretKey("test", b"w" * 32))
    assert Detector(other, unit).detect_pooled(texts).log10_pvalue > -4


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


@pytest.mark.parametrize(
    ("engine", "record"),
    [
        ("vllm", lambda unit: engine_key(unit, "vllm-gumbel")),
        ("sglang", lambda unit: replace(engine_key(unit, "sglang-gumbel"), context_width=9)),
        ("transformers", lambda unit: engine_key(unit, "hf-green-list", vocab_size=257)),
    ],
)
def test_what_an_engines_own_key_marked_is_kept_under_the_ledgers_secret(
    tokenizer: Path,
    unit: TokenizerUnit,
    tmp_path: Path,
    engine: str,
    record: Callable[[str], KeyRecord],
) -> None:
    """Its contexts are as wide as those of our own keys, which are what an audit tests."""
    settings, disk = make_settings(tmp_path), Disk(f"native-{engine}")
    earlier = {"role": "assistant", "content": "to be left out"}

    async def work() -> str:
        opener = lambda: open_ledger(settings, disk)
        said = lambda _asked: "to be kept, to be left out"
        async with serving(tokenizer, record, engine, said, ledger=opener) as on:
            answer = await on.post(messages=[*CHAT["messages"], earlier, *CHAT["messages"]])
            assert answer.headers["x-watermark"] == "marked; path=native; key=engine"
            text: str = answer.json()["choices"][0]["message"]["content"]
            return text

    text = asyncio.run(work())
    rows = by_kind(rows_in(settings, disk))
    (begun,), (ended,) = rows[Kind.BEGIN], rows[Kind.END]
    assert (begun.key_id, begun.path) == ("engine", "native")
    ids = unit.encode(text)
    assert ended.n_tokens == len(ids)
    windows = {tuple(ids[i - 2 : i].tolist()) for i in range(2, len(ids))}
    old = unit.encode(str(earlier["content"])).tolist()
    windows -= {tuple(old[i - 2 : i]) for i in range(2, len(old))}
    prf = ContextPRF(engine_context_key(settings.secret()))
    wanted = prf.evaluate(np.array(sorted(windows), np.uint32))[0]
    found = unpack_fingerprints(ended.contents or b"")
    assert found.tolist() == sorted(wanted.tolist())
    assert bytes(8) not in found.tobytes()


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


def test_what_the_proxy_marks_the_engine_does_not_mark_again(tokenizer: Path) -> None:
    async def work(engine: str, off: dict[str, Any]) -> None:
        model = {"native": NativeConfig(engine=engine)}  # type: ignore[arg-type]
        async with proxied(honest(), tokenizer, model=model) as on:
            answer = await on.client.post(URL, json=CHAT | {"max_tokens": 12})
            assert answer.headers["x-watermark"].startswith("marked; path=splice")
            for one in on.upstream.asked():
                assert one.json().items() >= off.items()

    asyncio.run(work("vllm", {"watermarking": False}))
    asyncio.run(work("sglang", {"watermark": {"enabled": False}}))
