"""What is not marked goes through byte for byte: the upstream's side of the socket is ours."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.asgi import proxied, scenario
from tests.support.servers import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fake_upstream import Behavior, Turn


async def echo(turn: Turn) -> None:
    """Answer with what was received."""
    request = turn.request
    said = {
        "method": request.method,
        "target": request.target.decode("latin-1"),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in request.headers],
        "body": hashlib.sha256(request.body).hexdigest(),
        "length": len(request.body),
    }
    await turn.answer(said)


TARGETS = [
    b"/",
    b"/v1/models",
    b"/v1/models/a%2Fb?x=1&x=2&y=",
    b"/a/../b/./c",
    b"//elsewhere.example/x",
    b"/%2e%2e/%zz",
    b"/a%0Ab",
    b"/x?url=http://y/z?w&q=a+b%20c",
    b"/v1/chat/completions/",
    b"/~user|'()*!$&,;=:@",
    b"/a?b#c",
]


def test_targets_reach_the_upstream_as_they_are(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            for target in TARGETS:
                reader, writer = await on.raw(
                    b"GET %s HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n" % target
                )
                answer = await reader.read()
                writer.close()
                assert answer.startswith(b"HTTP/1.1 200"), answer
                assert on.upstream.requests[-1].target == target.partition(b"#")[0]

    scenario(work)


def test_targets_that_are_no_ascii_are_refused(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            for target in (b"/\xc3\xa9", b"/?q=\xc3\xa9"):
                reader, writer = await on.raw(
                    b"GET %s HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n" % target
                )
                assert (await reader.read()).startswith(b"HTTP/1.1 400")
                writer.close()

    scenario(work)


def test_any_method(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
                for content in (None, b"{}"):
                    answer = await on.client.request(method, "/v1/files", content=content)
                    assert answer.json()["method"] == method
                    assert answer.json()["length"] == len(content or b"")
                without, given = on.upstream.requests[-2:]
                assert not without.values(b"transfer-encoding")
                assert without.values(b"content-length") in ([], [b"0"])
                assert given.values(b"content-length") == [b"2"]

    scenario(work)


def test_generation_paths_with_another_method_pass(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            for method in ("GET", "DELETE"):
                answer = await on.client.request(method, "/v1/chat/completions")
                assert answer.status_code == 200

    scenario(work)


def test_what_is_below_the_proxys_own_path_stays_here(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            assert (await on.client.post("/watermark/health")).status_code == 405
            assert (await on.client.get("/watermark/detect")).status_code == 405
            assert (await on.client.post("/watermark/detekt", content=b"{}")).status_code == 404
            assert not on.upstream.requests

    scenario(work)


def test_headers_travel_repeated_and_hop_by_hop_ones_do_not(tokenizer: Path) -> None:
    async def behave(turn: Turn) -> None:
        await turn.answer(
            b"ok",
            headers=(
                ("set-cookie", "a=1"),
                ("set-cookie", "b=2"),
                ("x-request-id", "r1"),
                ("date", "Sat, 01 Jan 2000 00:00:00 GMT"),
                ("connection", "keep-alive, x-private"),
                ("x-private", "hop"),
                ("keep-alive", "timeout=5"),
                ("content-type", "text/plain"),
            ),
        )

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            answer = await on.client.get(
                "/v1/x",
                headers=[
                    ("authorization", "Bearer sk-1"),
                    ("x-twice", "1"),
                    ("x-twice", "2"),
                    ("connection", "x-mine"),
                    ("x-mine", "hop"),
                    ("te", "trailers"),
                    ("proxy-authorization", "secret"),
                ],
            )
            headers = answer.headers.multi_items()
            assert [value for name, value in headers if name == "set-cookie"] == ["a=1", "b=2"]
            assert [value for name, value in headers if name == "date"] == [
                "Sat, 01 Jan 2000 00:00:00 GMT"
            ]
            assert answer.headers["x-request-id"] == "r1"
            assert not {"x-private", "keep-alive"} & set(answer.headers)
            (request,) = on.upstream.requests
            assert request.values(b"x-twice") == [b"1", b"2"]
            assert request.values(b"authorization") == [b"Bearer sk-1"]
            assert request.values(b"host") == [on.upstream.url.removeprefix("http://").encode()]
            names = {name for name, _ in request.headers}
            assert not {b"x-mine", b"te", b"proxy-authorization"} & names

    scenario(work)


def test_nothing_is_added_to_a_bare_request(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            reader, writer = await on.raw(b"GET /x HTTP/1.1\r\nhost: p\r\n\r\n")
            await reader.readline()
            writer.close()
            assert [name for name, _ in on.upstream.requests[0].headers] == [b"host"]

    scenario(work)


def test_cookies_and_redirects_stay_the_clients_own(tokenizer: Path) -> None:
    async def behave(turn: Turn) -> None:
        await turn.answer(
            b"", status=307, headers=(("location", "/elsewhere"), ("set-cookie", "sid=1; path=/"))
        )

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            for _ in range(2):
                on.client.cookies.clear()
                answer = await on.client.get("/v1/x")
                assert answer.status_code == 307
                assert answer.headers["location"] == "/elsewhere"
            assert len(on.upstream.requests) == 2
            assert not any(request.values(b"cookie") for request in on.upstream.requests)

    scenario(work)


def test_compressed_bodies_pass_undecoded(tokenizer: Path) -> None:
    data = gzip.compress(b"hello" * 1000)

    async def behave(turn: Turn) -> None:
        await turn.answer(
            data, headers=(("content-encoding", "gzip"), ("content-type", "text/plain"))
        )

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            async with on.client.stream(
                "POST", "/v1/x", content=data, headers={"content-encoding": "gzip"}
            ) as answer:
                raw = b"".join([part async for part in answer.aiter_raw()])
            assert raw == data
            assert answer.headers["content-encoding"] == "gzip"
            assert on.upstream.requests[0].body == data
            # A request for text is unpacked to be read, and goes on as it was read.
            answer = await on.client.post(
                "/v1/chat/completions", content=data, headers={"content-encoding": "gzip"}
            )
            assert answer.headers["x-watermark"] == "unmarked; reason=unreadable"
            assert on.upstream.requests[1].body == gzip.decompress(data)
            assert not on.upstream.requests[1].values(b"content-encoding")

    scenario(work)


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(tokenizer: Path, status: int) -> None:
    async def behave(turn: Turn) -> None:
        length = b"content-length: 10\r\n" if status == 304 else b""
        await turn.raw(b"HTTP/1.1 %d No\r\netag: x\r\n%s\r\n" % (status, length))

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            for _ in range(2):  # the connection stays usable
                answer = await on.client.get("/v1/x")
                assert (answer.status_code, answer.content) == (status, b"")
                assert answer.headers["etag"] == "x"

    scenario(work)


def test_head_keeps_the_length(tokenizer: Path) -> None:
    async def behave(turn: Turn) -> None:
        await turn.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            for _ in range(2):
                answer = await on.client.head("/v1/x")
                assert (answer.headers["content-length"], answer.content) == ("1234", b"")

    scenario(work)


def test_large_bodies_both_ways(tokenizer: Path) -> None:
    size = 20 * 1024 * 1024  # more than a generation request may have

    async def behave(turn: Turn) -> None:
        await turn.answer(turn.request.body)

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(size // 65536):
            yield b"x" * 65536

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            answer = await on.client.post("/v1/files", content=b"x" * size)
            assert answer.content == b"x" * size
            assert on.upstream.requests[0].values(b"content-length") == [str(size).encode()]
            answer = await on.client.post("/v1/files", content=upload())
            assert len(answer.content) == size
            assert on.upstream.requests[1].values(b"transfer-encoding") == [b"chunked"]

    scenario(work)


def test_streams_arrive_as_they_are_sent(tokenizer: Path) -> None:
    async def work() -> None:
        proceed = asyncio.Event()

        async def behave(turn: Turn) -> None:
            await turn.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            await turn.chunk(b"data: 1\n\n")
            await proceed.wait()
            await turn.chunk(b"data: 2\n\n")
            await turn.raw(b"0\r\n\r\n")

        async with (
            proxied(behave, tokenizer) as on,
            on.client.stream("GET", "/v1/events") as answer,
        ):
            parts = answer.aiter_raw()
            assert await anext(parts) == b"data: 1\n\n"
            proceed.set()
            assert [part async for part in parts] == [b"data: 2\n\n"]

    scenario(work)


def test_an_upload_streams_too(tokenizer: Path) -> None:
    """The upstream sees the first part before the client has sent the last."""

    async def work() -> None:
        seen = asyncio.Event()

        async def upload() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.wait_for(seen.wait(), 5)
            yield b"last"

        async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"first")
            seen.set()
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        async with server, proxied(echo, tokenizer, url=url) as on:
            answer = await on.client.post("/v1/files", content=upload())
            assert answer.content == b"ok"

    scenario(work)


def test_an_unmarked_answer_that_breaks_off_is_cut(tokenizer: Path) -> None:
    async def behave(turn: Turn) -> None:
        await turn.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await turn.chunk(b"data: 1\n\n")
        turn.cut()

    async def work() -> None:
        async with proxied(behave, tokenizer) as on:
            reader, writer = await on.raw(b"GET /v1/x HTTP/1.1\r\nhost: p\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert b"data: 1" in answer
            assert not answer.endswith(b"0\r\n\r\n")
            assert await on.metric("watermark_failures_total") == 1

    scenario(work)


def test_a_client_that_leaves_takes_its_upstream_request_along(tokenizer: Path) -> None:
    async def silent(turn: Turn) -> None:
        await turn.until_gone()

    async def talking(turn: Turn) -> None:
        await turn.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await turn.chunk(b"data: 1\n\n")
        await turn.until_gone()

    async def work(behave: Behavior) -> None:
        async with proxied(behave, tokenizer) as on:
            _, writer = await on.raw(
                b"POST /v1/x HTTP/1.1\r\nhost: p\r\ncontent-length: 2\r\n\r\n{}"
            )
            await eventually(lambda: on.upstream.requests)
            writer.transport.abort()
            await asyncio.wait_for(on.upstream.left.wait(), 2)
            assert await on.metric("watermark_failures_total") == 0

    scenario(lambda: work(silent))
    scenario(lambda: work(talking))


def test_a_client_that_leaves_in_its_upload(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            _, writer = await on.raw(
                b"POST /v1/x HTTP/1.1\r\nhost: p\r\ncontent-length: 100\r\n\r\nnone"
            )
            await eventually(lambda: on.upstream.open)
            writer.transport.abort()
            await asyncio.wait_for(on.upstream.left.wait(), 2)
            # What may be JSON is read whole before anything is asked.
            _, writer = await on.raw(
                b"POST /v1/x HTTP/1.1\r\nhost: p\r\ncontent-length: 100\r\n\r\n{}"
            )
            writer.transport.abort()
            assert on.upstream.requests == []
            assert (await on.client.get("/v1/y")).status_code == 200

    scenario(work)


def test_a_websocket_is_refused_without_noise(
    tokenizer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            reader, writer = await on.raw(
                b"GET /v1/realtime HTTP/1.1\r\nhost: p\r\nupgrade: websocket\r\n"
                b"connection: upgrade\r\nsec-websocket-version: 13\r\n"
                b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            head = await reader.readline()
            assert b" 101 " not in head
            writer.close()

    scenario(work)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_two_clients_share_no_connection_state(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            answers = await asyncio.gather(
                *(
                    on.client.get("/v1/x", headers={"authorization": f"Bearer {place}"})
                    for place in range(20)
                )
            )
            for place, answer in enumerate(answers):
                headers = dict(map(tuple, json.loads(answer.content)["headers"]))
                assert headers["authorization"] == f"Bearer {place}"

    scenario(work)
