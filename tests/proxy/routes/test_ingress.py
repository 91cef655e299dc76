"""Fields by which a client could switch the mark off, or choose its key, are the operator's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import IngressConfig
from proxy.errors import BadRequestError
from proxy.routes.ingress import OWNED, Ingress
from proxy.telemetry.metrics import Metrics
from tests.support.asgi import proxied, scenario
from tests.support.fake_upstream import honest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fake_upstream import Turn

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
URL = "/v1/chat/completions"
CUES = {
    "watermarking": False,
    "watermark": {"enabled": False, "key": "DEADBEEF"},
    "custom_logit_processor": '{"callable": "80"}',
    "custom_params": {"watermark": 1, "mine": 2},
    "vllm_xargs": {"watermark_key": 7, "mine": "x"},
    "generation_config": '{"watermarking_config": {}}',
    "use_beam_search": True,
}
REFUSED = {"custom_logit_processor", "generation_config", "use_beam_search"}
MERGED = {"custom_params": {"mine": 2}, "vllm_xargs": {"mine": "x"}}


def rules(**fields: Any) -> Ingress:
    return Ingress(IngressConfig(**fields), Metrics())


def test_every_owned_field_is_tried() -> None:
    assert set(CUES) == set(OWNED)
    assert set(OWNED) < set(IngressConfig.__struct_fields__)


@pytest.mark.parametrize("name", OWNED)
def test_the_rules_as_they_come(name: str) -> None:
    body = json.dumps({"a": 1.50, name: CUES[name], "seed": 2**70}).encode()
    if name in REFUSED:
        with pytest.raises(BadRequestError, match=f"{name} is not the client's"):
            rules().admit(body)
        return
    kept = json.loads(rules().admit(body))
    assert kept.pop("a") == 1.5
    assert kept.pop("seed") == 2**70
    assert kept == ({name: MERGED[name]} if name in MERGED else {})


@pytest.mark.parametrize("name", OWNED)
def test_each_rule_of_each_field(name: str) -> None:
    body = json.dumps({name: CUES[name]}).encode()
    assert rules(**{name: "pass"}).admit(body) is body
    assert rules(**{name: "strip"}).admit(body) == b"{}"
    with pytest.raises(BadRequestError) as caught:
        rules(**{name: "refuse"}).admit(body)
    assert caught.value.param == name
    nothing = {"watermarking": True, "use_beam_search": False}  # taken out, not refused
    for value in (None, nothing.get(name)):
        asked = json.dumps({name: value}).encode()
        assert rules(**{name: "refuse"}).admit(asked) == b"{}"


def test_what_no_rule_changes_keeps_its_bytes() -> None:
    body = b'{ "n" : 1.0e0,\t"x":{"watermark":false}, "vllm_xargs": {"mine":1} , "s":"\\u00e9"}'
    assert rules().admit(body) is body
    changed = rules().admit(b'{"watermarking":null, "x": { "b" : 1.50 }, "n":1.0e0}')
    assert changed == b'{"x":{ "b" : 1.50 },"n":1.0e0}'


def test_within_sampling_parameters_too() -> None:
    inner = {"temperature": 1, "custom_params": {"watermark": 1}}
    body = json.dumps({"text": "Hi", "sampling_params": inner, "watermark": {}}).encode()
    kept = json.loads(rules().admit(body))
    assert kept == {"text": "Hi", "sampling_params": {"temperature": 1, "custom_params": {}}}
    inner = {"custom_logit_processor": "x"}
    with pytest.raises(BadRequestError):
        rules().admit(json.dumps({"sampling_params": inner}).encode())


SMUGGLED = [
    b'{"\\u0077atermarking": false}',
    b'{"watermarking": true, "watermarking": false}',
    b' \r\n\t{"watermarking": false}',
]
LENIENT = [
    b'{"watermarking": false, "x": NaN}',
    b'{"watermarking": false, "x": "\\ud800"}',
    b'\xef\xbb\xbf{"watermarking": false}',
    '{"watermarking": false}'.encode("utf-16"),
    '{"watermarking": false}'.encode("utf-16-be"),
    ' {"watermarking": false}'.encode("utf-16-be"),
    '{"watermarking": false}'.encode("utf-32"),
    b'{"watermarking": false, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("body", SMUGGLED)
def test_no_spelling_gets_around_a_rule(body: bytes) -> None:
    assert rules().admit(body) == b"{}"


@pytest.mark.parametrize("body", LENIENT, ids=lambda body: repr(body[:30]))
def test_what_only_lenient_readers_read_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError, match="lenient"):
        rules().admit(body)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[{}]", b"\xff\xfe", b"GIF89a{", b'{"a"'])
def test_what_nobody_reads_as_an_object_goes_on(body: bytes) -> None:
    assert rules().admit(body) is body


@given(st.dictionaries(st.sampled_from([*OWNED, "model", "x"]), st.none() | st.integers(0, 3)))
@settings(max_examples=100, deadline=None)
def test_stripping_leaves_no_owned_field_and_takes_no_other(fields: dict[str, Any]) -> None:
    strict = rules(**dict.fromkeys(OWNED, "strip"))
    kept = msgspec.json.decode(strict.admit(json.dumps(fields).encode()))
    assert kept == {name: value for name, value in fields.items() if name not in OWNED}


def test_a_switch_is_stripped_and_the_reply_is_marked(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(honest(), tokenizer) as on:
            answer = await on.client.post(URL, json=CHAT | {"watermarking": False})
            assert answer.headers["x-watermark"].startswith("marked")
            assert await on.metric("watermark_ingress_fields_total") == 1
            answer = await on.client.post(URL, json=CHAT | {"use_beam_search": True})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "use_beam_search"
            assert await on.metric("watermark_refusals_total") == 1
            # Quoted numbers are numbers to most servers, and so to the mark.
            answer = await on.client.post(URL, json=CHAT | {"temperature": "1", "n": "1"})
            assert answer.headers["x-watermark"].startswith("marked")

    scenario(work)


async def record(turn: Turn) -> None:
    await turn.answer({"said": "ok"})


@pytest.mark.parametrize("label", ["application/json", "text/plain", "audio/wav", None])
def test_any_path_and_any_label(tokenizer: Path, label: str | None) -> None:
    async def work() -> None:
        async with proxied(record, tokenizer) as on:
            headers = {} if label is None else {"content-type": label}
            body = b'  {"text": "Hi", "watermark": {"enabled": false}}'
            answer = await on.client.post("/generate", content=body, headers=headers)
            assert answer.status_code == 200
            (request,) = on.upstream.requests
            assert request.body == b'{"text":"Hi"}'
            assert request.values(b"content-length") == [b"13"]
            refused = b'{"custom_logit_processor": "x"}'
            answer = await on.client.post("/generate", content=refused, headers=headers)
            assert answer.status_code == 400
            assert len(on.upstream.requests) == 1

    scenario(work)


def test_a_mark_of_byte_order_that_comes_byte_by_byte(tokenizer: Path) -> None:
    async def work() -> None:
        async with proxied(record, tokenizer) as on:
            for data in LENIENT[2:7]:
                reader, writer = await on.raw(
                    b"POST /generate HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for place in range(len(data)):
                    writer.write(b"1\r\n" + data[place : place + 1] + b"\r\n")
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
                assert b" 400 " in await reader.readline()
                writer.close()
            assert not on.upstream.requests

    scenario(work)


REFUSE = ["tools", "temperature-zero", "unreadable", "other-path", "model-not-configured"]


def test_what_cannot_be_marked_may_be_refused(tokenizer: Path) -> None:
    async def work() -> None:
        ingress = msgspec.convert({"refuse": REFUSE}, IngressConfig)
        async with proxied(honest(), tokenizer, ingress=ingress) as on:
            tool = {"type": "function", "function": {"name": "f"}}
            for body in (
                CHAT | {"tools": [tool]},
                CHAT | {"temperature": 0},
                CHAT | {"model": "x"},
                CHAT | {"n": -1},
            ):
                answer = await on.client.post(URL, json=body)
                assert answer.status_code == 400, answer.text
                assert "not served here" in answer.json()["error"]["message"]
            assert (await on.client.post("/generate", json={})).status_code == 400
            answer = await on.client.post(
                "/v1/messages", json=CHAT | {"temperature": 0, "max_tokens": 9}
            )
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert answer.json()["type"] == "error"
            assert not on.upstream.requests
            assert (await on.client.post(URL, json=CHAT)).status_code == 200
            # Counting gives no text.
            await on.client.post("/v1/messages/count_tokens", json={"messages": []})
            assert on.upstream.requests[-1].target == b"/v1/messages/count_tokens"

    scenario(work)


def test_a_temperature_is_raised_where_that_is_all_that_is_in_the_way(tokenizer: Path) -> None:
    async def work() -> None:
        ingress = IngressConfig(min_temperature=0.6)
        async with proxied(honest(), tokenizer, ingress=ingress) as on:
            answer = await on.client.post(URL, json=CHAT | {"temperature": 0, "seed": 2**70})
            assert answer.headers["x-watermark"].startswith("marked")
            assert on.upstream.asked()[0].json()["temperature"] == 0.6
            # Neither a reply that is marked as it is nor one that cannot be is touched.
            await on.client.post(URL, json=CHAT | {"temperature": 0.3})
            assert on.upstream.asked()[-1].json()["temperature"] == 0.3
            schema = {"type": "json_object"}
            body = CHAT | {"temperature": 0, "response_format": schema}
            await on.client.post(URL, json=body)
            assert on.upstream.requests[-1].json() == body

    scenario(work)
