"""`bias`: what goes upstream, what passes back, who is told, and that the text is detected."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest

from proxy.app import create_app
from proxy.cli.serve import bias_warnings
from proxy.cli.servers import running
from proxy.config import BiasConfig, Capabilities, IngressConfig, LedgerConfig, SelftestConfig
from tests.support.disks import Disk
from tests.support.fake_upstream import FakeUpstream, Turn
from tests.support.ledgers import by_kind, make_settings, open_ledger, rows_in
from tests.support.servers import key_record, model_config, proxy_config
from watermark.detection import Detector
from watermark.keys import KeyRecord, KeyRing
from watermark.ledger import Kind
from watermark.schemes import green_list
from watermark.text import TokenizerUnit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from proxy.config import ProxyConfig
    from watermark.ledger import Ledger

CHAT_URL, TEXT_URL = "/v1/chat/completions", "/v1/completions"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
FIRST, SIZE = 34, 64  # of the byte tokenizer: "A" is 34, and no byte of a longer character follows
TOKENS = 120
ABLE = Capabilities(continuation="none", logit_bias=True, max_bias=70)


def list_key(unit: str) -> KeyRecord:
    parameters = (("first_id", FIRST), ("list_size", SIZE))
    return replace(key_record(unit), scheme="static-green-list", parameters=parameters)


class Server:
    """An upstream of a uniform language, which obeys biases or not."""

    def __init__(self, unit: TokenizerUnit, *, obeys: bool = True) -> None:
        self.unit = unit
        self.obeys = obeys
        self.rng = np.random.default_rng(0)
        self.answers: list[bytes] = []

    def speak(self, asked: dict[str, Any]) -> str:
        tokens = np.arange(FIRST, FIRST + 58)  # A to z, and what lies between
        biases = asked.get("logit_bias", {}) if self.obeys else {}
        weights = np.exp([biases.get(str(token), 0.0) for token in tokens.tolist()])
        return self.unit.decode(self.rng.choice(tokens, TOKENS, p=weights / weights.sum()).tolist())

    async def behave(self, turn: Turn) -> None:
        asked = turn.request.json()
        texts = [self.speak(asked) for _ in range(asked.get("n", 1))]
        if asked.get("stream"):
            events = [
                {"choices": [{"index": place, "delta": {"content": text[i : i + 7]}}], "odd": 1.50}
                for place, text in enumerate(texts)
                for i in range(0, len(text), 7)
            ]
            data = b"".join(b"data:%s\r\n\r\n" % json.dumps(one).encode() for one in events)
            data += b": ping\n\ndata: [DONE]\n\n"
            headers = (("content-type", "text/event-stream"),)
        else:
            is_chat = turn.request.target == CHAT_URL.encode()
            said = [{"message": {"content": one}} if is_chat else {"text": one} for one in texts]
            choices = [{"index": place, "odd": 1.50} | one for place, one in enumerate(said)]
            body = {"choices": choices, "usage": {"completion_tokens": TOKENS}}
            data = json.dumps(body, indent=1).encode()
            headers = (("content-type", "application/json"),)
        self.answers.append(data)
        await turn.answer(data, headers=headers)


@dataclass(frozen=True)
class On:
    client: httpx2.AsyncClient
    upstream: FakeUpstream
    server: Server
    record: KeyRecord
    config: ProxyConfig

    async def post(self, url: str = CHAT_URL, **fields: Any) -> httpx2.Response:
        body = CHAT if url == CHAT_URL else {"model": "m", "prompt": "?", "max_tokens": TOKENS}
        return await self.client.post(url, json=body | fields)

    async def metric(self, name: str) -> float:
        text = (await self.client.get("/watermark/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.split()[-1]) for line in lines)

    async def until_checked(self, replies: int) -> None:
        deadline = asyncio.get_running_loop().time() + 10
        while await self.metric("watermark_selftest_replies_total") < replies:
            assert asyncio.get_running_loop().time() < deadline


@contextlib.asynccontextmanager
async def serving(
    tokenizer: Path,
    *,
    obeys: bool = True,
    bias: BiasConfig = BiasConfig(enabled=True),  # noqa: B008 - frozen
    ledger: Callable[[], Ledger] | None = None,
    **fields: Any,
) -> AsyncIterator[On]:
    unit = TokenizerUnit.read(tokenizer)
    server, record = Server(unit, obeys=obeys), list_key(unit.unit_id)
    model = model_config("m", tokenizer, capabilities=ABLE, bias=bias)
    kept = None if ledger is None else LedgerConfig(file="LEDGER.toml")
    async with FakeUpstream(server.behave).serving() as upstream:
        config = proxy_config(
            upstream.url, model, selftest=SelftestConfig(share=1.0), ledger=kept, **fields
        )
        app = create_app(config, KeyRing((record,)), open_ledger=ledger)
        async with (
            running(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield On(client, upstream, server, record, config)


@pytest.mark.parametrize("url", [CHAT_URL, TEXT_URL])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_list_goes_up_and_the_reply_passes_byte_for_byte(
    tokenizer: Path, url: str, is_streamed: bool
) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            plain = {"temperature": 0.7, "min_p": 0.1, "stream": is_streamed}
            answer = await on.post(url, **plain)
            (asked,) = on.upstream.asked(url.encode())
            said = asked.json()["logit_bias"]
            assert set(said) <= set(map(str, green_list(on.record).tolist()))
            assert set(said.values()) == {2}
            assert len(said) > 25
            assert asked.json().items() >= plain.items()
            assert answer.content == on.server.answers[0]
            assert answer.headers["x-watermark"] == "marked; path=bias; key=test"

    asyncio.run(work())


def test_what_was_marked_is_detected_with_the_same_keys(tokenizer: Path) -> None:
    async def work() -> tuple[KeyRecord, str]:
        async with serving(tokenizer) as on:
            replies = [(await on.post()).json() for _ in range(3)]
            return on.record, " ".join(one["choices"][0]["message"]["content"] for one in replies)

    record, text = asyncio.run(work())
    unit = TokenizerUnit.read(tokenizer)
    assert Detector(record, unit).detect(text).log10_pvalue == pytest.approx(-4.0)
    other = replace(record, secret=key_record(unit.unit_id, secret=b"w" * 32).secret)
    assert Detector(other, unit).detect(text).log_pvalue > math.log(0.01)


@pytest.mark.parametrize("rule", ["merge", "strip", "refuse"])
def test_a_clients_own_biases_are_the_operators_to_rule(tokenizer: Path, rule: Any) -> None:
    async def work() -> None:
        ingress = IngressConfig(logit_bias=rule)
        async with serving(tokenizer, ingress=ingress) as on:
            green = int(green_list(on.record)[0])
            answer = await on.post(logit_bias={"7": 1.5, str(green): -100})
            assert await on.metric("watermark_ingress_fields_total") == 1
            if rule == "refuse":
                assert answer.status_code == 400
                assert answer.json()["error"]["param"] == "logit_bias"
                assert not on.upstream.asked(CHAT_URL.encode())
                return
            said = on.upstream.asked(CHAT_URL.encode())[0].json()["logit_bias"]
            assert len(said) <= ABLE.max_bias
            assert ("7" in said) == (rule == "merge")
            assert said[str(green)] == (-100 if rule == "merge" else 2)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("url", "body", "reason"),
    [
        (CHAT_URL, CHAT | {"temperature": 0}, "temperature-zero"),
        (CHAT_URL, CHAT | {"tools": [{"type": "function"}]}, "tools"),
        (CHAT_URL, CHAT | {"response_format": {"type": "json_object"}}, "structured-output"),
        ("/v1/responses", {"model": "m", "input": "?"}, "no-capable-path"),
        ("/v1/messages", CHAT | {"max_tokens": 9}, "no-capable-path"),
        (CHAT_URL, CHAT | {"logit_bias": {str(i): 1 for i in range(60)}}, "unsupported-parameter"),
    ],
)
def test_what_may_not_be_marked_passes_as_it_is(
    tokenizer: Path, url: str, body: dict[str, Any], reason: str
) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            answer = await on.client.post(url, json=body)
            assert answer.headers["x-watermark"] == f"unmarked; reason={reason}"
            assert answer.content == on.server.answers[0]
            assert on.upstream.asked(url.encode())[0].json() == body

    asyncio.run(work())


def test_it_is_off_unless_it_is_switched_on_and_loud_where_it_is(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer, bias=BiasConfig()) as on:
            answer = await on.post()
            assert answer.headers["x-watermark"] == "unmarked; reason=no-capable-path"
            assert "logit_bias" not in on.upstream.asked(CHAT_URL.encode())[0].json()
            assert bias_warnings(on.config) == []
        async with serving(tokenizer) as on:
            (warning,) = bias_warnings(on.config)
            assert "replies CHANGE" in warning
            assert "no evidence" in warning

    asyncio.run(work())


def test_every_choice_is_heard(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            await on.post(n=3)
            await on.until_checked(3)

    asyncio.run(work())


def test_an_upstream_that_stops_to_obey_raises_the_alarm(tokenizer: Path) -> None:
    async def work() -> None:
        async with serving(tokenizer) as on:
            for _ in range(50):
                await on.post()
            await on.until_checked(50)
            assert await on.metric("watermark_selftest_alarm") == 0
            assert await on.metric("watermark_selftest_effect") > 0.3
            on.server.obeys = False
            for _ in range(50):
                await on.post()
            await on.until_checked(100)
            assert await on.metric("watermark_selftest_alarm") == 1

    asyncio.run(work())


def test_an_upstream_that_never_obeys_raises_the_alarm_within_fifty_replies(
    tokenizer: Path,
) -> None:
    async def work() -> None:
        async with serving(tokenizer, obeys=False) as on:
            for _ in range(50):
                await on.post()
            await on.until_checked(50)
            assert await on.metric("watermark_selftest_alarm") == 1

    asyncio.run(work())


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_ledger_has_what_was_marked(tokenizer: Path, tmp_path: Path, is_streamed: bool) -> None:
    settings, disk = make_settings(tmp_path), Disk(f"bias-{is_streamed}")

    async def work() -> None:
        async with serving(tokenizer, ledger=lambda: open_ledger(settings, disk)) as on:
            await on.post(stream=is_streamed)

    asyncio.run(work())
    rows = by_kind(rows_in(settings, disk))
    (begun,), (ended,) = rows[Kind.BEGIN], rows[Kind.END]
    assert begun.reply == ended.reply
    assert ended.n_tokens == TOKENS
