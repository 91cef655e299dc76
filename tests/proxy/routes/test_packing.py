"""Bodies that are packed, in other charsets, or forms: none passes the operator's rules unseen."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import IngressConfig, ServerConfig
from proxy.errors import BadRequestError, BodyTooLargeError, UnreadableBodyError
from proxy.routes.ingress import Ingress
from proxy.routes.packing import PartNames, codings_of, unpacked
from proxy.telemetry.metrics import Metrics
from tests.support.asgi import proxied, scenario
from tests.support.fake_upstream import honest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.fake_upstream import Turn

URL = "/v1/chat/completions"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
OFF = json.dumps(CHAT | {"watermarking": False}).encode()
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=b"


def part(name: str, value: str = "false", *, how: str = 'name="{}"') -> bytes:
    said = how.format(name)
    return f"--b\r\nContent-Disposition: form-data; {said}\r\n\r\n{value}\r\n".encode()


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


async def echo(turn: Turn) -> None:
    """Answer drafts honestly, and anything else with how it came."""
    if turn.request.target in (b"/v1/completions", b"/tokenize", b"/v1/models"):
        await honest()(turn)
    else:
        await turn.answer({"length": len(turn.request.body)})


PACKED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZIP", gzip.compress),
    ("deflate", zlib.compress),
    ("gzip, identity", gzip.compress),
    ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
]


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_a_packed_request_is_read_marked_and_goes_on_plain(
    tokenizer: Path, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            headers = {"content-encoding": coding, "content-type": JSON}
            answer = await on.client.post(URL, content=pack(OFF), headers=headers)
            assert answer.headers["x-watermark"].startswith("marked; path=splice")
            for path in (URL, "/generate"):  # what is not marked, and what is not marked here
                body = OFF[:-1] + b', "temperature": 0, "x": 1.50}'
                await on.client.post(path, content=pack(body), headers=headers)
                (asked,) = on.upstream.asked(path.encode())
                assert asked.values(b"content-encoding") == []
                assert asked.values(b"content-length") == [str(len(asked.body)).encode()]
                assert b"watermarking" not in asked.body
                assert b"1.50" in asked.body
            assert await on.metric("watermark_ingress_fields_total") == 3

    scenario(work)


@pytest.mark.parametrize(
    ("headers", "body", "status", "said"),
    [
        ({"content-encoding": "br"}, b"\x0b\x02", 415, "content-encoding 'br'; send it plain"),
        ({"content-encoding": "gzip"}, OFF, 415, "is not what content-encoding 'gzip' says"),
        ({"content-encoding": "gzip"}, gzip.compress(OFF)[:-9], 415, "is not what"),
        ({"content-encoding": "gzip"}, gzip.compress(OFF) + b"more", 415, "is not what"),
        ({"content-encoding": "gzip"}, gzip.compress(bytes(10**6)), 400, "unpacked"),
        ({"content-encoding": "gzip, zstd"}, gzip.compress(OFF), 415, "'zstd'"),
        ({"content-type": f"{JSON}; charset=utf-7"}, OFF, 415, "charset 'utf-7'"),
        ({"content-type": f'{JSON};Charset="UTF-16"'}, OFF, 415, "charset 'utf-16'"),
        ({"content-type": f"{JSON}; charset=cp037"}, "{}".encode("cp037"), 415, "UTF-8"),
        ({"content-type": f"{JSON}; charset=iso-8859-1"}, b'{"a": "\xe9"}', 400, "lenient"),
        ({"content-type": JSON}, b'{"watermarking": false, "a": "\xff"}', 400, "lenient"),
        ({"content-type": PARTS}, form(part("watermarking")), 400, "watermarking is not"),
        ({"content-type": FORM}, b"a=1&water%6Darking=false", 400, "watermarking is not"),
        ({"content-type": FORM}, b"vllm_xargs[watermark]=1", 400, "vllm_xargs is not"),
    ],
)
def test_what_cannot_be_read_is_refused_on_every_path(
    tokenizer: Path, headers: dict[str, str], body: bytes, status: int, said: str
) -> None:
    async def work() -> None:
        limit = ServerConfig(max_body_bytes=100_000)
        async with proxied(echo, tokenizer, server=limit) as on:
            for path in (URL, "/v1/audio/transcriptions"):
                answer = await on.client.post(path, content=body, headers=headers)
                assert answer.status_code == (413 if said == "unpacked" else status), answer.text
                assert said in answer.json()["error"]["message"]
                assert on.upstream.asked(path.encode()) == []
            assert (await on.client.post(URL, json=CHAT)).status_code == 200

    scenario(work)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": PARTS}, form(part("messages", "Hi"), part("temperature", "0"))),
        ({"content-type": FORM}, b"messages=Hi&watermarked=no"),
        ({"content-type": "text/plain"}, b"watermarking=false"),
        ({"content-type": f"{JSON}; charset=ISO-8859-1"}, b'{"model": "x"}'),
        ({}, b""),
    ],
)
def test_what_the_upstream_knows_best_passes_counted(
    tokenizer: Path, headers: dict[str, str], body: bytes
) -> None:
    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            answer = await on.client.post(URL, content=body, headers=headers)
            assert answer.status_code == 200
            assert answer.headers["x-watermark"].startswith("unmarked; reason=")
            (asked,) = on.upstream.asked(URL.encode())
            assert asked.body == body
        refusing = IngressConfig(refuse=("unreadable", "model-not-configured"))
        async with proxied(echo, tokenizer, ingress=refusing) as on:
            answer = await on.client.post(URL, content=body, headers=headers)
            assert answer.status_code == 400
            assert on.upstream.requests == []

    scenario(work)


def test_a_large_upload_streams_and_is_looked_into_meanwhile(tokenizer: Path) -> None:
    """It may be larger than what is read into memory; a field at its end is still found."""
    sound = part("file", "x" * 300_000)

    async def work() -> None:
        limit = ServerConfig(max_body_bytes=10_000)
        async with proxied(echo, tokenizer, server=limit) as on:
            headers = {"content-type": PARTS}
            path = "/v1/audio/transcriptions"
            good = form(sound, part("model", "whisper"))
            answer = await on.client.post(path, content=good, headers=headers)
            assert answer.json() == {"length": len(good)}
            bad = form(sound, part("watermarking"))
            answer = await on.client.post(path, content=bad, headers=headers)
            assert answer.status_code == 400
            assert "watermarking is not" in answer.json()["error"]["message"]
            assert len(on.upstream.asked(path.encode())) == 1
            assert await on.metric("watermark_ingress_fields_total") == 1

    scenario(work)


def test_a_packed_upload_that_is_no_json_stays_packed(tokenizer: Path) -> None:
    data = gzip.compress(b"no json at all")

    async def work() -> None:
        async with proxied(echo, tokenizer) as on:
            headers = {"content-encoding": "gzip", "content-type": "text/plain"}
            await on.client.post("/v1/files", content=data, headers=headers)
            (asked,) = on.upstream.asked(b"/v1/files")
            assert asked.body == data
            assert asked.values(b"content-encoding") == [b"gzip"]
            headers = {"content-encoding": "gzip", "content-type": PARTS}
            packed = gzip.compress(form(part("watermark")))
            answer = await on.client.post("/v1/files", content=packed, headers=headers)
            assert answer.status_code == 400

    scenario(work)


SPELLINGS = (
    'name="{}"',
    "name={}",
    "NAME = {}",
    'filename="f"; name="{}"',
    'filename="\\"; name=\\"mine"; name="{}"',
    "name*=utf-8''{}",
    'x=1;\r\n name="{}"',
)


@pytest.mark.parametrize("how", SPELLINGS)
@pytest.mark.parametrize("name", ["watermarking", "watermark%69ng", "water\\marking"])
def test_names_are_found_however_they_are_spelt_and_cut(how: str, name: str) -> None:
    data = form(part("file", "x" * 99), part(name, how=how))
    for size in (1, 7, len(data)):
        names = PartNames()
        found = [one for i in range(0, len(data), size) for one in names.feed(data[i : i + size])]
        assert "watermarking" in found


def test_a_rule_that_passes_a_field_passes_it_in_a_form() -> None:
    ingress = Ingress(IngressConfig(watermarking="pass"), Metrics())
    ingress.check_form([PARTS.encode()], form(part("watermarking")))
    with pytest.raises(BadRequestError):
        ingress.check_form([PARTS.encode()], form(part("watermark")))


@given(st.binary(max_size=200), st.lists(st.sampled_from([b"gzip", b"deflate"]), max_size=3))
@settings(max_examples=100, deadline=None)
def test_packing_is_undone(data: bytes, codings: list[bytes]) -> None:
    packed = data
    for coding in codings:
        packed = gzip.compress(packed) if coding == b"gzip" else zlib.compress(packed)
    headers = [(b"Content-Encoding", b", ".join(codings))]
    assert unpacked(packed, codings_of(headers), 200) == data


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_nothing_else_than_a_refusal_comes_of_any_bytes(data: bytes) -> None:
    for coding in (b"gzip", b"deflate"):
        try:
            unpacked(data, [coding], 1000)
        except (UnreadableBodyError, BodyTooLargeError):
            continue
    list(PartNames().feed(data))
