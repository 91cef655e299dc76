"""An upstream that speaks Anthropic's messages alone, with its refusals, and marks through it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import msgspec
import numpy as np
import pytest

from proxy.app import create_app
from proxy.cli.servers import running
from proxy.config import Capabilities, ModelConfig, UpstreamConfig, parse_config
from proxy.errors import ConfigError, UpstreamProtocolError, UpstreamStatusError
from proxy.sampling.questions import UNBOUNDED, Draft, Drafted, Finish
from proxy.upstream.anthropic_messages import WHOLE_TOKENS, MessagesUpstream
from proxy.upstream.client import UpstreamClient
from proxy.upstream.headers import with_anthropic_key
from proxy.upstream.probing import Findings, Prober
from proxy.upstream.text_prompts import TextUpstream
from tests.support.fake_upstream import FakeUpstream, Turn
from tests.support.servers import key_record, proxy_config
from watermark.detection import Detector
from watermark.keys import KeyRing
from watermark.text import WORDS_V1, WordsUnit
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxy.upstream.continuing import Upstream

WORDS = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(6) for j in range(6)]
FIELDS = frozenset(
    {"model", "messages", "system", "max_tokens", "temperature", "top_p", "top_k", "metadata",
     "stop_sequences"}
)  # fmt: skip


class Claude:
    """Writes words, one a token, up to a length; refuses what the real one refuses."""

    def __init__(self, length: int = 60, **traits: bool) -> None:
        self.length = length
        self.prefills = traits.get("prefills", True)
        self.repeats = traits.get("repeats", False)
        self.thinks = traits.get("thinks", False)
        self.samples = traits.get("samples", True)
        self.rng = np.random.default_rng(0)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    def answer(self, path: str, headers: dict[str, str], content: bytes) -> tuple[int, Any]:
        if path != "/v1/messages":
            return 404, {"error": {"message": "not found"}}
        body = msgspec.json.decode(content)
        self.asked.append(body)
        self.headers.append(headers)
        last = body["messages"][-1]
        given = last["content"] if last["role"] == "assistant" else ""
        if complaint := self._complaint(body, headers, given):
            return 400, {"type": "error", "error": {"message": complaint}}
        return 200, self._message(body, given)

    def _complaint(self, body: dict[str, Any], headers: dict[str, str], given: str) -> str:
        if "x-api-key" not in headers or "anthropic-version" not in headers:
            return "headers"
        if "authorization" in headers:
            return "two keys"
        if unknown := body.keys() - FIELDS:
            return f"{sorted(unknown)}: extra inputs are not permitted"
        if complaint := self._untaken(body, given):
            return complaint
        if given != given.rstrip():
            return "final assistant content cannot end with trailing whitespace"
        return ""

    def _untaken(self, body: dict[str, Any], given: str) -> str:
        if "temperature" in body and not self.samples:
            return "temperature is not supported by this model"
        is_begun = bool(given) and not self.prefills
        return "This model does not support assistant message prefill" if is_begun else ""

    def _message(self, body: dict[str, Any], given: str) -> dict[str, Any]:
        n_left = self.length - len(given.split())
        n = min(n_left, body["max_tokens"])
        greedy = body.get("temperature") == 0
        begun = len(given.split())
        picks = (
            range(begun, begun + n) if greedy else self.rng.integers(len(WORDS), size=n).tolist()
        )
        text = "".join(f" {WORDS[pick % len(WORDS)]}" for pick in picks)
        if n < n_left and not greedy:
            text += " "  # white space that the next request may not end in
        content = [{"type": "text", "text": (given if self.repeats else "") + text}]
        if self.thinks:
            content.insert(0, {"type": "thinking", "thinking": "hm"})
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": "max_tokens" if n < n_left else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 3 + begun, "output_tokens": max(1, n)},
        }

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        status, body = self.answer(request.url.path, dict(request.headers), request.content)
        return httpx2.Response(status, json=body)

    async def behave(self, turn: Turn) -> None:
        request = turn.request
        headers = {name.decode(): value.decode() for name, value in request.headers}
        status, body = self.answer(request.target.decode(), headers, request.body)
        await turn.answer(body, status=status)


HEADERS = [(b"authorization", b"Bearer sk")]


def ask(claude: Claude, request: GenerationRequest, *drafts: Draft) -> list[Drafted]:
    async def work() -> list[Drafted]:
        transport = httpx2.MockTransport(claude.handle)
        async with UpstreamClient(UpstreamConfig(url="http://u"), transport=transport) as client:
            upstream = MessagesUpstream(client)
            return [await upstream.draft(request, [], draft, HEADERS) for draft in drafts]

    return asyncio.run(work())


def request_of(dialect: DialectName, **fields: Any) -> GenerationRequest:
    messages = [{"role": "user", "content": "?"}]
    return parse_request(
        dialect, msgspec.json.encode({"model": "m", "messages": messages} | fields)
    )


CHAT = request_of(
    DialectName.CHAT,
    messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}],
    temperature=0.5,
)


def draft_of(text: str = "", **fields: Any) -> Draft:
    given: dict[str, Any] = {"tokens": (), "n": 1, "max_tokens": 4, "text": text}
    return Draft(**(given | fields))


def test_a_reply_is_continued_by_a_closing_message() -> None:
    claude = Claude()
    (first,), (second,) = (
        one.continuations for one in ask(claude, CHAT, draft_of(), draft_of(" waa wab "))
    )
    assert first.finish is second.finish is Finish.LENGTH
    assert first.n_tokens == 4
    assert len(first.text.split()) == 4
    assert first.text == first.text.rstrip()
    begun, continued = claude.asked
    assert begun == {
        "model": "m",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "?"}],
        "max_tokens": 4,
        "temperature": 0.5,
    }
    assert continued["messages"][-1] == {"role": "assistant", "content": " waa wab"}
    assert claude.headers[0]["x-api-key"] == "sk"


def test_a_clients_own_words_stay_and_its_beginning_is_gone_on_with() -> None:
    claude = Claude()
    request = request_of(
        DialectName.MESSAGES,
        max_tokens=99,
        system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        metadata={"user_id": "u"},
        stream=True,
        stop_sequences=["x"],
        messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": "So"}],
    )
    ask(claude, request, draft_of(" waa"))
    (asked,) = claude.asked
    assert asked["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert asked["messages"][1:] == [{"role": "assistant", "content": "So waa"}]
    assert asked["max_tokens"] == 4
    assert "stream" not in asked
    assert "stop_sequences" not in asked  # cut here: the upstream sees parts only
    assert "temperature" not in asked  # nobody said one, and later models refuse it


@pytest.mark.parametrize("repeats", [False, True])
def test_a_repeated_beginning_is_cut_off(repeats: bool) -> None:
    ((one,),) = (
        each.continuations for each in ask(Claude(repeats=repeats), CHAT, draft_of(" waa wab"))
    )
    assert len(one.text.split()) == 4


class Chanting(Claude):
    """Goes on with what it was given once more, and says so."""

    def _message(self, body: dict[str, Any], given: str) -> dict[str, Any]:
        return super()._message(body, given) | {
            "content": [{"type": "text", "text": given[: 4 * body["max_tokens"]]}]
        }


def test_text_that_merely_repeats_itself_is_kept() -> None:
    claude = Chanting()
    chant, other = (
        each.continuations[0].text
        for each in ask(claude, CHAT, draft_of(" waa wab"), draft_of(" waa wac"))
    )
    assert (chant, other) == (" waa wab", " waa wac")
    assert len(claude.asked) == 3  # once in doubt: continuations are not repeated
    assert claude.asked[1]["max_tokens"] == 1
    assert "system" not in claude.asked[1]


def test_whole_replies_are_the_clients_own_requests() -> None:
    claude = Claude(length=10)
    request = request_of(DialectName.CHAT, stop=["END"])
    whole = draft_of(max_tokens=UNBOUNDED, is_whole=True)
    ((one,),) = (each.continuations for each in ask(claude, request, whole))
    assert one.finish is Finish.STOP
    assert one.origin is not None
    assert one.origin.completion_tokens == 10
    assert len(one.text.split()) == 10
    assert claude.asked[0]["max_tokens"] == WHOLE_TOKENS
    assert claude.asked[0]["stop_sequences"] == ["END"]


def test_thinking_of_a_whole_reply_is_kept_apart_from_its_text() -> None:
    whole = draft_of(max_tokens=99, is_whole=True)
    ((one,),) = (each.continuations for each in ask(Claude(length=9, thinks=True), CHAT, whole))
    assert one.origin is not None
    assert one.origin.trace == "hm"
    assert len(one.text.split()) == 9


def test_what_cannot_be_continued_says_so() -> None:
    with pytest.raises(UpstreamProtocolError, match="thinking"):
        ask(Claude(thinks=True), CHAT, draft_of())
    with pytest.raises(UpstreamProtocolError, match="max_n = 1"):
        ask(Claude(), CHAT, draft_of(n=2))
    with pytest.raises(UpstreamStatusError) as refused:
        ask(Claude(prefills=False), CHAT, draft_of(" waa"))
    assert b"prefill" in refused.value.body


def test_one_key_goes_up_under_the_name_that_is_read() -> None:
    version = (b"anthropic-version", b"2099-01-01")
    both = [(b"authorization", b"Bearer sk"), (b"x-api-key", b"own"), version]
    assert with_anthropic_key(both) == [(b"x-api-key", b"own"), version]
    assert with_anthropic_key([version]) == [version]


def probe(claude: Claude) -> Findings:
    async def work() -> Findings:
        transport = httpx2.MockTransport(claude.handle)
        async with UpstreamClient(UpstreamConfig(url="http://u"), transport=transport) as client:

            def adapter(able: Capabilities) -> Upstream:
                if able.api == "anthropic":
                    return MessagesUpstream(client, repeats=able.echo)
                return TextUpstream(client, able, None)

            ticks = iter(range(10_000))
            return await Prober(
                model="m",
                declared=Capabilities(parallel=8),
                vocab_size=0,
                adapter=adapter,
                headers=HEADERS,
                clock=lambda: float(next(ticks)),
            ).probe()

    return asyncio.run(work())


@pytest.mark.parametrize("repeats", [False, True])
def test_a_probe_finds_a_closing_message_that_is_gone_on_with(repeats: bool) -> None:
    findings = probe(Claude(repeats=repeats))
    found = findings.capabilities
    assert (found.api, found.continuation, found.echo) == ("anthropic", "prefix", repeats)
    assert f"repeats what it continues: {'yes' if repeats else 'no'}" in findings.notes
    assert (found.max_n, found.parallel, found.logit_bias) == (1, 8, False)


def test_a_probe_finds_that_a_later_model_refuses_it() -> None:
    findings = probe(Claude(prefills=False))
    assert (findings.capabilities.api, findings.capabilities.continuation) == ("anthropic", "none")
    assert any("closing message over anthropic: no" in note for note in findings.notes)


def test_a_probe_of_a_model_that_refuses_a_temperature_says_none() -> None:
    findings = probe(Claude(prefills=False, samples=False))
    assert (findings.capabilities.api, findings.capabilities.continuation) == ("anthropic", "none")
    assert "answers over anthropic: with max_tokens, without temperature" in findings.notes
    assert "speed: yes" in findings.notes


@contextlib.asynccontextmanager
async def serving(claude: Claude, **able: Any) -> AsyncIterator[str]:
    model = ModelConfig(
        name="m",
        unit="words/v1",
        capabilities=Capabilities(api="anthropic", parallel=6, **able),
    )
    async with FakeUpstream(claude.behave).serving() as upstream:
        app = create_app(proxy_config(upstream.url, model), KeyRing((key_record(WORDS_V1),)))
        async with running(app) as url:
            yield url


def log_pvalue(text: str) -> float:
    return Detector(key_record(WORDS_V1), WordsUnit()).detect(text).log_pvalue


def test_a_clients_message_is_marked_by_select() -> None:
    async def work() -> None:
        claude = Claude(length=150)
        async with serving(claude, continuation="prefix") as url:
            async with anthropic.AsyncAnthropic(base_url=url, api_key="sk") as client:
                messages: Any = [{"role": "user", "content": "?"}]
                said = await client.messages.with_raw_response.create(
                    model="m", max_tokens=200, messages=messages
                )
                assert said.headers["x-watermark"] == "marked; path=select; key=test"
                (block,) = (await said.parse()).content
                assert block.type == "text"
                assert len(block.text.split()) == 150
                assert log_pvalue(block.text) < math.log(1e-4)
            async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as openai:
                answer = await openai.post(
                    "/v1/chat/completions",
                    json={"model": "m", "messages": messages, "max_tokens": 150},
                    headers={"authorization": "Bearer sk"},
                )
                text = answer.json()["choices"][0]["message"]["content"]
                assert log_pvalue(text) < math.log(1e-4)
        assert {headers["x-api-key"] for headers in claude.headers} == {"sk"}

    asyncio.run(work())


def test_a_later_model_is_marked_by_whole_replies() -> None:
    async def work() -> None:
        claude = Claude(length=40, prefills=False, samples=False)
        async with (
            serving(claude, continuation="none") as url,
            anthropic.AsyncAnthropic(base_url=url, api_key="sk") as client,
        ):
            said = await client.messages.with_raw_response.create(
                model="m", max_tokens=60, messages=[{"role": "user", "content": "?"}]
            )
            assert said.headers["x-watermark"] == "marked; path=reply; key=test"
        assert len(claude.asked) == 4  # replies drawn

    asyncio.run(work())


def test_a_config_that_asks_more_of_the_dialect_is_refused(tmp_path: Path) -> None:
    text = '[upstream]\nurl = "http://u"\n[keys]\nfile = "K"\n[[model]]\nname = "m"\n'
    text += 'unit = "words/v1"\n[model.capabilities]\napi = "anthropic"\n'
    for more in ("", 'continuation = "text"', 'continuation = "prefix"\nmax_n = 4'):
        with pytest.raises(ConfigError, match="one choice a request"):
            parse_config(text + more, path=tmp_path / "proxy.toml")
    parse_config(text + 'continuation = "prefix"\nparallel = 8', path=tmp_path / "proxy.toml")
