"""Upstreams that are down, slow, rude, or that lie, under marked requests."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from proxy.config import SpliceConfig
from tests.support.asgi import proxied, scenario
from tests.support.fake_upstream import LETTER_A, honest
from tests.support.servers import SELECT_ONLY, VOCAB, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.fake_upstream import Behavior, Turn

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 40}
STREAM = CHAT | {"stream": True}
URL = "/v1/chat/completions"
GREEDY = {"splice": SpliceConfig(logprobs=20, drafts=0)}
SAMPLED = {"splice": SpliceConfig(logprobs=20, drafts=2)}
SELECT = {"splice": SELECT_ONLY}


@pytest.mark.parametrize("model", [GREEDY, SAMPLED, SELECT])
def test_an_honest_upstream_is_marked(tokenizer: Path, model: dict[str, Any]) -> None:
    async def work() -> None:
        async with proxied(honest(), tokenizer, model=model) as on:
            answer = await on.client.post(URL, json=CHAT)
            assert answer.headers["x-watermark"].startswith("marked")
            assert answer.json()["usage"]["completion_tokens"] == 40

    scenario(work)


def test_an_upstream_that_is_down(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(honest(), tokenizer, url="http://127.0.0.1:9") as on:
            for body in (CHAT, STREAM, CHAT | {"temperature": 0}):
                answer = await on.client.post(URL, json=body)
                error = answer.json()["error"]
                assert answer.status_code == 502
                assert error["type"] == "upstream_error"
                assert "check that it runs" in error["message"]
            assert (await on.client.get("/v1/models")).status_code == 502
            assert (await on.client.get("/watermark/health")).text == "ok\n"

    scenario(work)


def drafts_then(count: int, last: Callable[[Turn], Any], model: Behavior) -> Behavior:
    """Serve some drafts, then do something else."""
    seen = 0

    async def behave(turn: Turn) -> None:
        nonlocal seen
        if turn.request.target == b"/v1/completions":
            seen += 1
            if seen > count:
                await last(turn)
                return
        await model(turn)

    return behave


async def cut(turn: Turn) -> None:
    turn.cut()


async def cut_in_the_body(turn: Turn) -> None:
    await turn.raw(b'HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{"choices"')
    turn.cut()


async def fail(turn: Turn) -> None:
    await turn.answer(b'{"error": {"message": "no memory"}}', status=500)


@pytest.mark.parametrize("model", [GREEDY, SAMPLED, SELECT])
@pytest.mark.parametrize("last", [cut, cut_in_the_body, fail])
def test_dying_in_mid_stream_invents_no_end(
    tokenizer: Path, model: dict[str, Any], last: Callable[[Turn], Any]
) -> None:
    async def work() -> None:
        behave = drafts_then(2, last, honest())
        async with proxied(behave, tokenizer, model=model) as on:
            answer = await on.client.post(URL, json=STREAM)
            assert answer.status_code == 200
            *events, rest = answer.text.split("\n\n")
            assert rest == ""
            chunks = [json.loads(event.removeprefix("data: ")) for event in events]
            assert chunks[-1]["error"]["type"] == "upstream_error"
            reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
            assert reasons == [None] * len(reasons)
            assert "[DONE]" not in answer.text
            assert await on.metric("watermark_failures_total") == 1

    scenario(work)


@pytest.mark.parametrize("drafts", [None, 0, 1])
def test_refusals_keep_status_headers_and_body(tokenizer: Path, drafts: int | None) -> None:
    statuses = (400, 401, 429, 500, 503, 529)
    status = 0
    body = b'{"error": {"message": "later",  "odd": 1}}'

    async def refuse(turn: Turn) -> None:
        headers = (
            *(("retry-after", "7"), ("x-request-id", "r-1"), ("connection", "keep-alive")),
            ("x-ratelimit-remaining-requests", "0"),
        )
        await turn.answer(body, status=status, headers=headers)

    async def work() -> None:
        nonlocal status
        async with proxied(refuse, tokenizer, model=GREEDY) as on:
            for status in statuses:
                if drafts is not None:
                    on.upstream.behave = drafts_then(drafts, refuse, honest())
                answer = await on.client.post(URL, json=CHAT)
                assert (answer.status_code, answer.content) == (status, body)
                assert answer.headers["retry-after"] == "7"
                assert answer.headers["x-request-id"] == "r-1"
                assert answer.headers["x-ratelimit-remaining-requests"] == "0"
                assert answer.headers["content-type"] == "application/json"

    scenario(work)


def test_a_compressed_refusal_is_passed_decoded(tokenizer: Path) -> None:
    import gzip  # noqa: PLC0415

    body = b'{"error": {"message": "later"}}'

    async def refuse(turn: Turn) -> None:
        await turn.answer(gzip.compress(body), status=429, headers=(("content-encoding", "gzip"),))

    async def work() -> None:
        async with proxied(refuse, tokenizer) as on:
            answer = await on.client.post(URL, json=CHAT)
            assert (answer.status_code, answer.content) == (429, body)

    scenario(work)


def change_choice(**fields: Any) -> Callable[[Any, dict[str, Any]], Any]:
    def change(asked: Any, answer: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        return {"choices": [choice | fields for choice in answer["choices"]]}

    return change


def relist(listed: dict[str, float]) -> Callable[[Any, dict[str, Any]], Any]:
    def change(asked: Any, answer: dict[str, Any]) -> dict[str, Any]:
        lists = {"top_logprobs": [listed] * asked["max_tokens"]}
        return {"choices": [choice | {"logprobs": lists} for choice in answer["choices"]]}

    return change


OTHERS = {f"token_id:{token}": -9.0 for token in range(1, 25)}
LIES: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "garbage": lambda _asked, _answer: b"<html>",
    "nothing": lambda _asked, _answer: b"",
    "half a character": lambda _asked, _answer: b'{"choices": "\xe2\x82"}',
    "depth": lambda _asked, _answer: b"[" * 100_000,
    "another form": lambda _asked, _answer: {"choices": None},
    "no choices": lambda _asked, _answer: {"choices": []},
    "too many choices": lambda _asked, answer: {"choices": answer["choices"] * 2},
    "no ids": lambda _asked, answer: {
        "choices": [{"index": one["index"], "finish_reason": "stop"} for one in answer["choices"]]
    },
    "empty ids": change_choice(token_ids=[]),
    "too many ids": change_choice(token_ids=[LETTER_A] * 99),
    "a negative id": change_choice(token_ids=[-5]),
    "an id beyond the vocabulary": change_choice(token_ids=[VOCAB]),
    "an absurd id": change_choice(token_ids=[2**70]),
    "an unknown finish": change_choice(finish_reason="tool_calls"),
    "no finish": change_choice(finish_reason=None),
    "a list without the token": relist(OTHERS),
    "a list of text": relist({"a": -0.1, "b": -2.0}),
    "a list beyond the vocabulary": relist({"token_id:99999999": -0.1} | OTHERS),
    "an absurd list": relist({f"token_id:{2**40}": -0.1}),
    "a list of more than one": relist({f"token_id:{LETTER_A}": 2.0} | OTHERS),
    "a short list": relist({f"token_id:{LETTER_A}": -0.1}),
    "null in a list": relist({f"token_id:{LETTER_A}": None}),  # type: ignore[dict-item]
    "no lists": change_choice(logprobs=None),
    "too few lists": change_choice(logprobs={"top_logprobs": []}),
}
OF_LISTS = {name for name in LIES if "list" in name}


@pytest.mark.parametrize("model", [GREEDY, SAMPLED, SELECT])
def test_lies_become_one_clear_error(
    tokenizer: Path, model: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with proxied(honest(), tokenizer, model=model) as on:
            for name, lie in LIES.items():
                if name in OF_LISTS and model is SELECT:
                    continue
                on.upstream.behave = honest(lie)
                for body in (CHAT, STREAM):
                    answer = await on.client.post(URL, json=body)
                    assert answer.status_code == 502, (name, answer.text)
                    error = answer.json()["error"]
                    assert error["type"] == "upstream_error"
                    assert "check" in error["message"] or ";" in error["message"]

    scenario(work)
    assert not caplog.records


def test_an_upstream_that_ignores_bias_is_found_out(tokenizer: Path) -> None:
    """The rest wins sooner or later; the token drawn outside the list is then still inside."""

    async def work() -> None:
        lie = change_choice(token_ids=[LETTER_A])
        async with proxied(
            honest(lambda asked, answer: lie(asked, answer) if "logit_bias" in asked else answer),
            tokenizer,
            model=GREEDY,
        ) as on:
            answer = await on.client.post(URL, json=CHAT | {"max_tokens": 2000})
            assert answer.status_code == 502
            assert "ignores logit_bias" in answer.json()["error"]["message"]

    scenario(work)


@pytest.mark.parametrize("path", [b"/v1/models", b"/tokenize", b"/v1/completions"])
def test_a_slow_upstream_times_out(tokenizer: Path, path: bytes) -> None:
    async def behave(turn: Turn) -> None:
        if turn.request.target == path:
            await turn.until_gone()
        await honest()(turn)

    async def work() -> None:
        limits = {"read_timeout_s": 0.2}
        async with proxied(behave, tokenizer, upstream=limits) as on:
            answer = await on.client.post(URL, json=CHAT)
            assert answer.status_code == 504
            assert "read_timeout_s" in answer.json()["error"]["message"]
            await eventually(on.upstream.left.is_set)

    scenario(work)


@pytest.mark.parametrize("model", [GREEDY, SELECT])
@pytest.mark.parametrize("drafts", [0, 3])
def test_a_client_that_hangs_up_ends_the_upstream_request(
    tokenizer: Path, model: dict[str, Any], drafts: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(turn: Turn) -> None:
        await turn.until_gone()

    async def work() -> None:
        async with proxied(honest(), tokenizer, model=model) as on:
            for fields in ({}, {"stream": True}, {"n": 3}, {"n": 3, "stream": True}):
                on.upstream.behave = drafts_then(drafts, hang, honest())
                on.upstream.requests.clear()
                on.upstream.left.clear()
                body = json.dumps(CHAT | fields).encode()
                _, writer = await on.raw(
                    b"POST %s HTTP/1.1\r\nhost: p\r\ncontent-length: %d\r\n\r\n%s"
                    % (URL.encode(), len(body), body)
                )
                hanging = int(fields.get("n", 1))
                await eventually(lambda n=hanging: len(on.upstream.asked()) >= drafts + n)  # type: ignore[misc]
                writer.transport.abort()
                await asyncio.wait_for(on.upstream.left.wait(), 5)
                count = len(on.upstream.asked())
                await asyncio.sleep(0.05)
                assert len(on.upstream.asked()) == count
                on.upstream.behave = honest()
                answer = await on.client.post(URL, json=CHAT)  # the pool is usable
                assert answer.status_code == 200
            assert await on.metric("watermark_failures_total") == 0

    scenario(work)
    assert not caplog.records


def test_a_client_that_stops_reading_and_leaves(tokenizer: Path) -> None:
    """Writing to a full socket must not outlive the client."""

    async def work() -> None:
        async with proxied(honest(), tokenizer, model=SELECT) as on:
            body = json.dumps(
                STREAM | {"max_tokens": 4000, "n": 8, "logprobs": True, "top_logprobs": 20}
            ).encode()
            _, writer = await on.raw(
                b"POST %s HTTP/1.1\r\nhost: p\r\ncontent-length: %d\r\n\r\n%s"
                % (URL.encode(), len(body), body)
            )
            await eventually(lambda: len(on.upstream.asked()) > 40)
            writer.transport.abort()
            before = -1
            while before != len(on.upstream.asked()):
                before = len(on.upstream.asked())
                await asyncio.sleep(0.5)
            assert before < 8 * 4000 // 8 / 2

    scenario(work)


def test_a_body_over_the_limit_is_refused(tokenizer: Path) -> None:
    from proxy.config import ServerConfig  # noqa: PLC0415

    async def work() -> None:
        server = ServerConfig(max_body_bytes=1000)
        async with proxied(honest(), tokenizer, server=server) as on:
            answer = await on.client.post(URL, content=b"x" * 5000)
            assert answer.status_code == 413
            assert "max_body_bytes" in answer.json()["error"]["message"]
            assert on.upstream.requests == []

    scenario(work)


def test_a_full_context_gets_the_upstreams_refusal(tokenizer: Path) -> None:
    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/models":
            await turn.answer({"data": [{"id": "m", "max_model_len": 3}]})
        elif turn.request.target == b"/tokenize":
            await turn.answer({"tokens": [1, 2, 3]})
        else:
            await turn.answer(b'{"error": "too long"}', status=400)

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            answer = await on.client.post(URL, json=CHAT)
            assert (answer.status_code, answer.content) == (400, b'{"error": "too long"}')
            assert on.upstream.requests[-1].json() == CHAT

    scenario(work)


def test_drafts_carry_the_callers_name_and_not_its_bodys(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(honest(), tokenizer, model=GREEDY) as on:
            headers = {
                "authorization": "Bearer sk-1",
                "x-tenant": "t",
                "idempotency-key": "once",
                "content-digest": "sha-256=:x:",
            }
            await on.client.post(URL, json=CHAT, headers=headers)
            for request in on.upstream.asked():
                assert request.values(b"authorization") == [b"Bearer sk-1"]
                assert request.values(b"x-tenant") == [b"t"]
                assert len(request.values(b"content-type")) == 1
                assert len(request.values(b"content-length")) == 1
                assert not request.values(b"idempotency-key")
                assert not request.values(b"content-digest")

    scenario(work)
