"""What is read of a request, field by field; and that nothing but `WireError` escapes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.errors import WireError
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "m", "prompt": "Hi"}


def chat(**fields: Any) -> GenerationRequest:
    return parse_request(DialectName.CHAT, json.dumps(CHAT | fields).encode())


def text(**fields: Any) -> GenerationRequest:
    return parse_request(DialectName.TEXT, json.dumps(TEXT | fields).encode())


READ: list[tuple[dict[str, Any], str, Any]] = [
    ({}, "temperature", 1.0),
    ({"temperature": 0}, "temperature", 0.0),
    ({"temperature": None}, "temperature", 1.0),
    ({"top_p": 0.5}, "top_p", 0.5),
    ({"top_k": -1}, "top_k", 0),
    ({"top_k": 7}, "top_k", 7),
    ({"presence_penalty": -2}, "presence_penalty", -2.0),
    ({"frequency_penalty": 1.5}, "frequency_penalty", 1.5),
    ({"logit_bias": {"5": -100, "7": 1.5}}, "logit_bias", {5: -100.0, 7: 1.5}),
    ({"logit_bias": None}, "logit_bias", {}),
    ({"stop": None}, "stop", ()),
    ({"stop": "a"}, "stop", ("a",)),
    ({"stop": ["a", "b"]}, "stop", ("a", "b")),
    ({"n": 3}, "n", 3),
    ({"seed": -1}, "seed", -1),
    ({"seed": 2**70}, "seed", 2**70),
    ({"max_tokens": 5}, "max_tokens", 5),
    ({"stream": True}, "is_streamed", True),
    ({"stream": True, "stream_options": {"include_usage": True}}, "wants_usage", True),
    ({"stream": True, "stream_options": {"include_obfuscation": False}}, "wants_usage", False),
    ({"stream_options": None}, "wants_usage", False),
    ({"return_token_ids": True}, "wants_token_ids", True),
    ({"return_tokens_as_token_ids": True}, "labels_as_ids", True),
    ({"model": None}, "model", ""),
    ({"user": "u", "metadata": {"a": 1}, "store": True}, "unknown", ()),
    ({"tools": [], "response_format": {"type": "text"}, "echo": False}, "unknown", ()),
    ({"min_p": 0.1, "best_of": 2}, "unknown", ("best_of", "min_p")),
    ({"min_p": None}, "unknown", ()),
    (
        {"stream": True, "stream_options": {"continuous_usage_stats": True}},
        "unknown",
        ("stream_options.continuous_usage_stats",),
    ),
]


@pytest.mark.parametrize(("fields", "name", "value"), READ)
def test_fields_of_both_endpoints(fields: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(chat(**fields), name) == value
    assert getattr(text(**fields), name) == value


def test_fields_of_one_endpoint() -> None:
    assert chat().max_tokens is None
    assert text().max_tokens == 16
    assert chat(max_tokens=5, max_completion_tokens=7).max_tokens == 7
    assert text(max_completion_tokens=7).unknown == ("max_completion_tokens",)
    assert chat().logprobs is None
    assert chat(logprobs=True).logprobs == 0
    assert chat(logprobs=True, top_logprobs=4).logprobs == 4
    assert chat(logprobs=False, top_logprobs=0).logprobs is None
    assert text().logprobs is None
    assert text(logprobs=0).logprobs == 0
    assert text(prompt=[1, 2]).prompt == [1, 2]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = {"role": "user", "content": parts}
    assert chat(messages=[message]).messages[0].text == "ab"
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}
    assert chat(messages=[image]).messages[0].text is None
    assert chat(messages=[{"role": "assistant"}]).messages[0].text == ""


REFUSED: list[dict[str, Any]] = [
    {"model": 5},
    {"temperature": -0.1},
    {"temperature": "warm"},
    {"temperature": True},
    {"top_p": 0},
    {"top_p": 1.01},
    {"top_k": -2},
    {"top_k": 1.5},
    {"n": 0},
    {"n": 1.5},
    {"max_tokens": 0},
    {"max_tokens": -4},
    {"presence_penalty": 2.1},
    {"frequency_penalty": -2.1},
    {"stop": ""},
    {"stop": ["a", ""]},
    {"stop": 5},
    {"stop": [None]},
    {"logit_bias": [1]},
    {"logit_bias": {"a": 1}},
    {"logit_bias": {" 5": 1}},
    {"logit_bias": {"+5": 1}},
    {"logit_bias": {"1_0": 1}},
    {"logit_bias": {"٣": 1}},
    {"logit_bias": {"9" * 5000: 1}},
    {"logit_bias": {"5": 101}},
    {"logit_bias": {"5": None}},
    {"logprobs": -1},
    {"stream": "please"},
    {"stream_options": {"include_usage": True}},
    {"seed": 1.5},
]


@pytest.mark.parametrize("fields", REFUSED, ids=lambda fields: str(fields)[:40])
def test_what_no_upstream_should_accept(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        text(**fields)
    if "logprobs" not in fields:
        with pytest.raises(WireError):
            chat(**fields)


def test_report_fields_of_chat_are_refused_alike() -> None:
    for fields in ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": -1}, {"logprobs": 3}):
        with pytest.raises(WireError):
            chat(**fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{}x",
        b'{"model": "\xe2\x82',
        b'{"model": "\\ud800", "prompt": ""}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"prompt": ' + b"[" * 100_000,
        b'{"model": "m"}',
        b'{"model": "m", "prompt": "", "temperature": 1e999}',
        b'{"model": "m", "prompt": "", "temperature": NaN}',
    ],
    ids=lambda data: repr(data[:30]),
)
@pytest.mark.parametrize("dialect", DialectName)
def test_bodies_that_are_none(dialect: DialectName, data: bytes) -> None:
    with pytest.raises(WireError):
        parse_request(dialect, data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        *("model", "messages", "prompt", "temperature", "top_p", "top_k", "n", "seed", "stop"),
        *("stream", "stream_options", "logprobs", "top_logprobs", "logit_bias", "max_tokens"),
        *("max_completion_tokens", "tools", "response_format", "presence_penalty"),
    ]
)


@given(st.dictionaries(FIELDS, JSON), st.sampled_from(DialectName))
@settings(max_examples=150, deadline=None)
def test_arbitrary_json_raises_nothing_else(fields: dict[str, Any], dialect: DialectName) -> None:
    base = CHAT if dialect is DialectName.CHAT else TEXT
    try:
        request = parse_request(dialect, json.dumps(base | fields).encode())
    except WireError:
        return
    assert request.n >= 1
    assert 0 < request.top_p <= 1
    assert isinstance(request.messages, list)
    assert len(request.shaping_digest()) == 32


@given(st.binary(max_size=200), st.sampled_from(DialectName))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_raise_nothing_else(data: bytes, dialect: DialectName) -> None:
    with pytest.raises(WireError):
        parse_request(dialect, data)


def test_the_digest_is_of_what_shapes_the_reply() -> None:
    plain = chat(seed=1, temperature=0.5).shaping_digest()
    assert chat(temperature=0.5, seed=1).shaping_digest() == plain
    assert chat(seed=1, temperature=0.5, stream=True, user="u").shaping_digest() == plain
    assert chat(seed=1, temperature=0.6).shaping_digest() != plain
    assert chat(seed=1, temperature=0.5, stop="x").shaping_digest() == plain
    assert text(seed=1).shaping_digest() != chat(seed=1).shaping_digest()
