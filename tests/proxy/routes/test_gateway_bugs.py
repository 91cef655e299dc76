"""What other gateways got wrong (UPSTREAMS, 1.3), each as a test; the numbers are that list's."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest
from starlette.middleware.base import BaseHTTPMiddleware

from proxy.app import create_app
from proxy.config import ServerConfig, SpliceConfig
from tests.support.asgi import proxied, scenario
from tests.support.fake_upstream import honest
from tests.support.servers import SELECT_ONLY, eventually, key_ring, model_config, proxy_config
from tests.support.streams import (
    ASKED,
    CHAT_PATH,
    ENDS,
    MESSAGES_PATH,
    PASSED,
    RESPONSES_PATH,
    STREAMS,
)
from watermark.wire.failures import dialect_of_path
from watermark.wire.sse import EventDecoder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.asgi import Proxied
    from tests.support.fake_upstream import Behavior, Turn

EVENTS = (("content-type", "text/event-stream"), ("x-request-id", "r-9"))
HEAD = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
    b"content-type: text/event-stream\r\nx-request-id: r-9\r\n\r\n"
)
# As OpenAI, Anthropic and gateways tell what is left of a quota.
LIMITS = {
    "x-request-id": "r-9",
    "request-id": "r-9",
    "retry-after": "7",
    "retry-after-ms": "6900",
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "6m0s",
    "anthropic-ratelimit-requests-remaining": "0",
    "anthropic-ratelimit-tokens-reset": "2026-01-01T00:00:00Z",
    "ratelimit-policy": '"default";q=60;w=60',
}
GREEDY = {"splice": SpliceConfig(logprobs=20, drafts=0)}
SELECT = {"splice": SELECT_ONLY}
DIALECTS = tuple(ASKED)


def sending(chunks: list[bytes], *, is_cut: bool = False) -> Behavior:
    """Return the behavior of an upstream that streams some chunks, and may break off."""

    async def behave(turn: Turn) -> None:
        await turn.raw(HEAD)
        for chunk in chunks:
            await turn.chunk(chunk)
        if is_cut:
            turn.cut()
        else:
            await turn.raw(b"0\r\n\r\n")

    return behave


async def received(on: Proxied, path: str, body: dict[str, Any]) -> tuple[bytes, bool]:
    """Return the bytes of an answer, and whether it ended in form."""
    data = b""
    try:
        async with on.client.stream("POST", path, json=body) as answer:
            async for chunk in answer.aiter_raw():
                data += chunk
    except httpx2.RemoteProtocolError:
        return data, False
    return data, True


def decoded(data: bytes) -> list[str]:
    return [event.data for event in EventDecoder().feed(data)]


@pytest.mark.parametrize("name", STREAMS)
def test_1_2_every_cut_of_a_stream_gives_the_same_events(name: str) -> None:
    data = b"".join(STREAMS[name][1])
    whole = EventDecoder().feed(data + b"\n")
    assert whole
    assert all(json.loads(event.data) for event in whole if not event.is_done)
    for place in range(len(data) + 1):
        decoder = EventDecoder()
        assert decoder.feed(data[:place]) + decoder.feed(data[place:] + b"\n") == whole


@pytest.mark.parametrize("name", STREAMS)
def test_1_2_3_10_streams_pass_byte_for_byte_however_they_are_cut(
    tokenizer: Path, name: str
) -> None:
    path, events = STREAMS[name]
    data = b"".join(events)

    async def work() -> None:
        cuts = [events, [data[i : i + 1] for i in range(len(data))]]
        cuts += [[data[:place], data[place:]] for place in range(1, len(data), 97)]
        async with proxied(sending([]), tokenizer) as on:
            for chunks in cuts:
                on.upstream.behave = sending(chunks)
                assert await received(on, path, PASSED[path]) == (data, True)

    scenario(work)


def test_3_usage_is_neither_asked_for_nor_told_unasked(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(honest(), tokenizer) as on:
            for options, is_told in (
                ({}, False),
                ({"stream_options": {"include_usage": False}}, False),
                ({"stream_options": {"include_usage": True}}, True),
            ):
                body = ASKED[CHAT_PATH] | {"stream": True} | options
                data, _ = await received(on, CHAT_PATH, body)
                assert (b'"usage"' in data) is is_told
            assert not any("stream_options" in one.json() for one in on.upstream.asked())

    scenario(work)


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_4_a_client_that_leaves_before_the_first_token_ends_everything_upstream(
    tokenizer: Path, path: str, *, is_streamed: bool
) -> None:
    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/completions":
            await turn.until_gone()
        await honest()(turn)

    async def work() -> None:
        server = ServerConfig(keep_alive_s=0.05)
        async with proxied(behave, tokenizer, model=SELECT, server=server) as on:
            body = json.dumps(ASKED[path] | {"stream": is_streamed}).encode()
            reader, writer = await on.raw(
                b"POST %s HTTP/1.1\r\nhost: p\r\ncontent-length: %d\r\n\r\n%s"
                % (path.encode(), len(body), body)
            )
            await eventually(on.upstream.asked)
            if is_streamed:  # it has begun, and no token was chosen
                await reader.readuntil(b": keep-alive\n\n")
            writer.transport.abort()
            await asyncio.wait_for(on.upstream.left.wait(), 2)
            on.upstream.behave = honest()
            assert (await on.client.post(path, json=ASKED[path])).status_code == 200

    scenario(work)


def test_5_no_middleware_of_the_kind_that_hides_a_hang_up(tokenizer: Path) -> None:
    config = proxy_config("http://127.0.0.1:9", model_config("m", tokenizer))
    app = create_app(config, key_ring(tokenizer))
    assert not any(issubclass(one.cls, BaseHTTPMiddleware) for one in app.user_middleware)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STREAMS)
def test_6_a_reset_at_every_event_of_a_passed_stream(tokenizer: Path, name: str) -> None:
    """Between events the client is told in its dialect; within one the connection breaks."""
    path, events = STREAMS[name]

    async def work() -> None:
        async with proxied(sending([]), tokenizer) as on:
            for count in range(1, len(events)):
                before = b"".join(events[:count])
                on.upstream.behave = sending(events[:count], is_cut=True)
                data, is_ended = await received(on, path, PASSED[path])
                assert data.startswith(before)
                assert is_ended
                assert not any(end in data[len(before) :] for end in ENDS)
                last = json.loads(decoded(data)[-1])
                assert "no answer from the upstream" in last["error"]["message"]
                half = events[count][: len(events[count]) // 2]
                on.upstream.behave = sending([*events[:count], half], is_cut=True)
                assert await received(on, path, PASSED[path]) == (before + half, False)

    scenario(work)


class Resets:
    """An upstream that answers some drafts and then breaks every connection off."""

    def __init__(self, count: int) -> None:
        self.left = count

    async def __call__(self, turn: Turn) -> None:
        if turn.request.target == b"/v1/completions":
            self.left -= 1
            if self.left < 0:
                turn.cut()
                return
        await honest(certain)(turn)


async def reset(turn: Turn) -> None:
    turn.cut()


def certain(_asked: Any, answer: dict[str, Any]) -> dict[str, Any]:
    """Leave the model no doubt of its token, so that every draft decides text."""
    for choice in answer["choices"]:
        for listed in (choice["logprobs"] or {"top_logprobs": []})["top_logprobs"]:
            first, *others = listed
            listed.update(dict.fromkeys(others, -40.0) | {first: 0.0})
    return answer


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("model", [GREEDY, SELECT], ids=["splice", "select"])
def test_6_a_reset_at_every_draft_of_a_marked_stream(
    tokenizer: Path, path: str, model: dict[str, Any]
) -> None:
    async def work() -> None:
        async with proxied(honest(certain), tokenizer, model=model) as on:
            body = ASKED[path] | {"stream": True}
            whole, _ = await received(on, path, body)
            assert any(end in whole for end in ENDS)
            n_drafts = len(on.upstream.asked())
            assert n_drafts > 1
            for count in range(n_drafts):
                on.upstream.behave = Resets(count)
                answer = await on.client.post(path, json=body)
                assert not any(end.decode() in answer.text for end in ENDS)
                if count == 0:  # nothing was sent: the status is free to say it
                    assert answer.status_code == 502
                    assert answer.json()["error"]["message"]
                else:
                    assert answer.status_code == 200
                    last = EventDecoder().feed(answer.content)[-1]
                    error = json.loads(last.data)
                    assert "no answer from the upstream" in error["error"]["message"]
                    check_in_dialect(path, last.kind, error)

    scenario(work)


def check_in_dialect(path: str, kind: str, error: dict[str, Any]) -> None:
    """Hold an event against what the dialect's clients look for."""
    if path == MESSAGES_PATH:
        assert (kind, error["type"], error["error"]["type"]) == ("error", "error", "api_error")
    elif path == RESPONSES_PATH:
        assert (kind, error["type"], error["code"]) == ("error", "error", "upstream_error")
        assert error["sequence_number"] >= 4
    else:
        assert (kind, error["error"]["type"]) == ("message", "upstream_error")


PACKED = [
    ("gzip", gzip.compress, True),
    ("deflate", zlib.compress, True),
    ("gzip", lambda data: data, False),
    ("br", lambda data: data, True),  # nobody here reads it: it is left as it is
    ("identity", lambda data: data, True),
]


@pytest.mark.parametrize(("label", "pack", "is_read"), PACKED)
def test_7_compressed_and_mislabelled_bodies(
    tokenizer: Path, label: str, pack: Any, *, is_read: bool
) -> None:
    async def packed(turn: Turn) -> None:
        inner = honest(lambda _asked, answer: pack(json.dumps(answer).encode()))
        turn_answer = turn.answer

        async def answer(body: Any, **_: Any) -> None:
            data = body if isinstance(body, bytes) else pack(json.dumps(body).encode())
            await turn_answer(
                data, headers=(("content-encoding", label), ("content-type", "text/plain"))
            )

        turn.answer = answer  # type: ignore[method-assign]
        await inner(turn)

    async def work() -> None:
        async with proxied(packed, tokenizer, model=SELECT) as on:
            for path in DIALECTS:
                answer = await on.client.post(
                    path, json=ASKED[path], headers={"accept-encoding": "br"}
                )
                assert "content-encoding" not in answer.headers
                assert answer.status_code == (200 if is_read else 502), answer.text
                assert int(answer.headers["content-length"]) == len(answer.content)
                # Our own questions offer only what we read ourselves.
                for one in on.upstream.asked():
                    assert b"br" not in b",".join(one.values(b"accept-encoding")).split(b", ")
                # What passes keeps its coding, its label and its length, right or wrong.
                data = pack(b'{"id":  1}')
                on.upstream.behave = lambda turn, data=data: turn.answer(  # type: ignore[misc]
                    data, headers=(("content-encoding", label),)
                )
                async with on.client.stream("POST", path, json=PASSED[path]) as passed:
                    raw = b"".join([chunk async for chunk in passed.aiter_raw()])
                assert raw == data
                assert passed.headers["content-encoding"] == label
                assert int(passed.headers["content-length"]) == len(data)
                on.upstream.behave = packed

    scenario(work)


@pytest.mark.parametrize("path", DIALECTS)
def test_7_refusals_keep_status_body_and_request_id(tokenizer: Path, path: str) -> None:
    status = 0
    body = b'{"error" : {"message": "no\\u2028", "odd": 1.50}}'
    headers = tuple(LIMITS.items())

    async def refuse(turn: Turn) -> None:
        await turn.answer(body, status=status, headers=headers)

    async def work() -> None:
        nonlocal status
        bodies = (ASKED[path], ASKED[path] | {"stream": True}, PASSED[path])
        async with proxied(refuse, tokenizer, model=GREEDY) as on:
            for status in (400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 529):
                for asked in bodies:
                    answer = await on.client.post(path, json=asked)
                    assert (answer.status_code, answer.content) == (status, body)
                    assert answer.headers.items() >= LIMITS.items()

    scenario(work)


@pytest.mark.parametrize("path", DIALECTS)
def test_8_keys_go_where_they_belong(tokenizer: Path, path: str) -> None:
    """A caller's key in Anthropic's header is the bearer token of an OpenAI-style upstream."""

    async def work() -> None:
        async with proxied(honest(), tokenizer) as on:
            headers = {"x-api-key": "sk-1", "anthropic-version": "2023-06-01"}
            await on.client.post(path, json=ASKED[path], headers=headers)
            assert on.upstream.asked()[0].values(b"authorization") == [b"Bearer sk-1"]
            own = headers | {"authorization": "Bearer sk-2"}
            await on.client.post(path, json=ASKED[path], headers=own)
            assert on.upstream.asked()[-1].values(b"authorization") == [b"Bearer sk-2"]

    scenario(work)


def slow(seconds: float, last: Behavior = honest()) -> Behavior:  # noqa: B008 - a function
    async def behave(turn: Turn) -> None:
        if turn.request.target == b"/v1/completions":
            await asyncio.sleep(seconds)
            await last(turn)
        else:
            await honest()(turn)

    return behave


@pytest.mark.parametrize("path", DIALECTS)
def test_9_comments_keep_a_silent_stream_alive(tokenizer: Path, path: str) -> None:
    async def work() -> None:
        server = ServerConfig(keep_alive_s=0.05)
        async with proxied(slow(0.2), tokenizer, model=SELECT, server=server) as on:
            answer = await on.client.post(path, json=ASKED[path] | {"stream": True})
            assert answer.text.startswith(": keep-alive\n\n")
            assert answer.text.count(": keep-alive\n\n") >= 4
            # Only between events: taken out, the events are whole, and the stream ends in form.
            events = [part for part in answer.text.split("\n\n") if part != ": keep-alive"]
            assert "keep-alive" not in "".join(events)
            assert len(decoded(answer.content)) == len(events) - 1
            assert any(end.decode() in events[-2] for end in ENDS)
            assert answer.headers["x-watermark"] == "marked; path=select"  # whose key, comes later
            plain = await on.client.post(path, json=ASKED[path])
            assert "keep-alive" not in plain.text

    scenario(work)


@pytest.mark.parametrize("path", DIALECTS)
def test_9_what_fails_after_a_comment_fails_within_the_stream(tokenizer: Path, path: str) -> None:
    async def work() -> None:
        server = ServerConfig(keep_alive_s=0.05)
        async with proxied(slow(0.2, reset), tokenizer, model=SELECT, server=server) as on:
            answer = await on.client.post(path, json=ASKED[path] | {"stream": True})
            assert answer.status_code == 200
            (event,) = EventDecoder().feed(answer.content)
            assert "no answer from the upstream" in json.loads(event.data)["error"]["message"]
            assert not any(end.decode() in answer.text for end in ENDS)

    scenario(work)


def test_11_abandoned_streams_give_their_connections_back(tokenizer: Path) -> None:
    async def hang(turn: Turn) -> None:
        await turn.raw(HEAD)
        await turn.until_gone()

    async def work() -> None:
        limits = {"max_connections": 4}
        async with proxied(hang, tokenizer, upstream=limits) as on:
            for number in range(12):
                path = DIALECTS[number % len(DIALECTS)]
                async with on.client.stream("POST", path, json=PASSED[path]) as answer:
                    assert answer.status_code == 200
            on.upstream.behave = honest()
            answer = await on.client.post(CHAT_PATH, json=ASKED[CHAT_PATH])
            assert answer.status_code == 200

    scenario(work)


def test_11_a_hung_request_blocks_no_other(tokenizer: Path) -> None:
    async def behave(turn: Turn) -> None:
        if b"hang" in turn.request.body:
            await turn.until_gone()
        await honest()(turn)

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            hung = asyncio.ensure_future(
                on.client.post(CHAT_PATH, json=PASSED[CHAT_PATH] | {"user": "hang"})
            )
            await eventually(lambda: on.upstream.requests)
            for path in DIALECTS:
                assert (await on.client.post(path, json=ASKED[path])).status_code == 200
            assert not hung.done()
            hung.cancel()

    scenario(work)


@pytest.mark.parametrize("name", ["chat", "completions", "responses", "messages"])
@pytest.mark.parametrize("status", [200, 429])
def test_12_limits_are_told_before_a_stream_begins(tokenizer: Path, name: str, status: int) -> None:
    """Of an answer that passes, and of one that a stream was asked for and that was refused."""
    path, events = STREAMS[name]

    async def behave(turn: Turn) -> None:
        if status != 200:
            await turn.answer(b'{"error": {}}', status=status, headers=tuple(LIMITS.items()))
            return
        told = "".join(f"{key}: {value}\r\n" for key, value in LIMITS.items())
        head = HEAD.replace(b"x-request-id: r-9\r\n", told.encode())
        await turn.raw(head)
        await may_go_on.wait()  # nothing of the body is needed to tell
        for event in events:
            await turn.chunk(event)
        await turn.raw(b"0\r\n\r\n")

    may_go_on = asyncio.Event()

    async def work() -> None:
        async with proxied(behave, tokenizer, model=GREEDY) as on:
            body = PASSED[path] | {"stream": True}
            async with on.client.stream("POST", path, json=body) as answer:
                assert answer.status_code == status
                assert answer.headers.items() >= LIMITS.items()
                may_go_on.set()
                assert await answer.aread() == (
                    b"".join(events) if status == 200 else b'{"error": {}}'
                )

    scenario(work)


def test_12_what_lies_below_a_dialect_fails_in_its_form() -> None:
    assert dialect_of_path("/v1/messages/batches").value == MESSAGES_PATH


@pytest.mark.parametrize("kind", ["chat", "completions", "responses", "messages"])
def test_6_the_packages_raise_what_a_broken_stream_says(tokenizer: Path, kind: str) -> None:
    """No client takes a reply that broke off for one that ended."""

    async def work() -> None:
        async with proxied(Resets(1), tokenizer, model=SELECT) as on:
            asked: dict[str, Any] = ASKED[STREAMS[kind][0]] | {"stream": True}
            async with (
                openai.AsyncOpenAI(base_url=f"{on.url}/v1", api_key="k", max_retries=0) as gpt,
                anthropic.AsyncAnthropic(base_url=on.url, api_key="k", max_retries=0) as claude,
            ):
                resources: dict[str, Any] = {
                    "chat": gpt.chat.completions,
                    "completions": gpt.completions,
                    "responses": gpt.responses,
                    "messages": claude.messages,
                }
                with pytest.raises(
                    (openai.APIError, anthropic.APIStatusError), match="no answer from"
                ):
                    async for _ in await resources[kind].create(**asked):
                        pass

    scenario(work)
