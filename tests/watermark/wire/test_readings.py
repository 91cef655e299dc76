"""What answers say in free text, of whole bodies and of the events of their streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.streams import STREAMS
from watermark.wire.answers import answer_dialect
from watermark.wire.failures import dialect_of_path
from watermark.wire.json_fields import raw_fields, with_fields
from watermark.wire.openai_answers import AnswerFrame, Piece
from watermark.wire.openai_requests import DialectName
from watermark.wire.readings import read_answer
from watermark.wire.sse import EventDecoder
from watermark.wire.usage import Usage

FRAME = AnswerFrame(
    answer_id="1", created=5, model="m", prompts=[[9]], n_choices=1, with_usage=True
)
PIECES = [
    Piece(choice=0, token=1, text="né\u2028", text_offset=0),
    Piece(choice=0, token=2, text=" 🙂", text_offset=3, finish_reason="stop"),
]
USAGE = Usage(prompt_tokens=2, completion_tokens=3)


@pytest.mark.parametrize("name", DialectName)
def test_what_is_written_is_read(name: DialectName) -> None:
    whole = answer_dialect(name, FRAME).whole([PIECES], USAGE)
    said = read_answer(name, json.dumps(whole).encode())
    assert (*said.texts.values(), said.completion_tokens) == ("né\u2028 🙂", 3)
    dialect = answer_dialect(name, FRAME)
    events = [
        *dialect.opening(USAGE),
        *dialect.chunk(0, PIECES[:1]),
        *dialect.chunk(0, PIECES[1:]),
        *dialect.closing(USAGE),
    ]
    data = b"".join(map(dialect.encode, events)) + dialect.END
    read = [
        read_answer(name, event.data.encode())
        for event in EventDecoder().feed(data)
        if not event.is_done
    ]
    assert "".join(text for one in read for text in one.texts.values()) == "né\u2028 🙂"
    assert [one.completion_tokens for one in read if one.completion_tokens is not None][-1] == 3


def test_calls_reasoning_and_refusals_are_not_text() -> None:
    expected = {
        "chat": "é\u2028\u0085 日本 🙂: data: xb",
        "responses": "é\u2028 🙂",
        "messages": "é🙂",
    }
    for name, text in expected.items():
        path, events = STREAMS[name]
        said = [
            text
            for event in EventDecoder().feed(b"".join(events))
            for text in read_answer(dialect_of_path(path), event.data.encode()).texts.values()
        ]
        assert "".join(said) == text


_THOUGHT = {"type": "thinking", "thinking": "b"}
_CALL: dict[str, Any] = {"type": "tool_use", "input": {}}
_REASONING = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "b"}]}
_REFUSAL = {"type": "message", "content": [{"type": "refusal", "refusal": "b"}]}
_TEXT = {"type": "message", "content": [{"type": "output_text", "text": "a"}]}
_SAID = {"index": 1, "message": {"content": "a", "reasoning": "b"}}
_BLOCK = {"type": "text", "text": "a"}
_PARTS = {"message": {"content": [{"type": "thinking", "thinking": ["b"]}, _BLOCK, _BLOCK]}}
_PART = {"type": "output_text", "text": "a"}
_TWICE = {"type": "message", "content": [_PART, _PART]}
_EMPTY: dict[str, Any] = {
    "type": "reasoning",
    "content": None,
    "summary": [],
}  # as vLLM and OpenAI write it
_DELTA = {"output_index": 2, "content_index": 1, "delta": "a"}
WHOLE: list[tuple[DialectName, dict[str, Any], dict[tuple[int, ...], str]]] = [
    (DialectName.CHAT, {"choices": [{"message": {"content": None}}]}, {}),
    (DialectName.CHAT, {"choices": [_SAID]}, {(1,): "a"}),
    (DialectName.CHAT, {"choices": [_PARTS]}, {(0,): "aa"}),
    (DialectName.CHAT, {"choices": [{"delta": {"content": [_BLOCK]}}]}, {(0,): "a"}),
    (DialectName.CHAT, {"choices": None, "usage": None}, {}),
    (DialectName.MESSAGES, {"type": "message", "content": [_THOUGHT, _CALL, _BLOCK]}, {(2,): "a"}),
    (
        DialectName.MESSAGES,
        {"type": "message", "content": [_BLOCK, _CALL, _BLOCK], "usage": None},
        {(0,): "a", (2,): "a"},
    ),
    (
        DialectName.MESSAGES,
        {"type": "content_block_start", "index": 3, "content_block": _BLOCK},
        {(3,): "a"},
    ),
    (DialectName.MESSAGES, {"type": "content_block_start", "content_block": _CALL}, {}),
    (DialectName.RESPONSES, {"output": [_REASONING, _REFUSAL, _TEXT]}, {(2, 0): "a"}),
    (
        DialectName.RESPONSES,
        {"output": [_EMPTY, _TEXT, {"type": "function_call", "arguments": "{}"}, _TWICE]},
        {(1, 0): "a", (3, 0): "a", (3, 1): "a"},
    ),
    (DialectName.RESPONSES, {"type": "response.output_text.delta"} | _DELTA, {(2, 1): "a"}),
]


@pytest.mark.parametrize(("dialect", "body", "texts"), WHOLE)
def test_texts_have_places_of_their_own(
    dialect: DialectName, body: dict[str, Any], texts: dict[tuple[int, ...], str]
) -> None:
    assert read_answer(dialect, json.dumps(body).encode()).texts == texts


@given(st.binary(max_size=60), st.sampled_from(DialectName))
@settings(max_examples=100, deadline=None)
def test_what_cannot_be_read_says_nothing(data: bytes, dialect: DialectName) -> None:
    assert read_answer(dialect, data).texts == {}
    assert read_answer(dialect, b'{"choices": ' + data).texts == {}


def test_fields_are_changed_and_others_keep_their_digits() -> None:
    data = b'{"a" : 1.50, "b":{ "c" : 1180591620717411303424 }, "a": 2.0}'
    assert with_fields(data, {}) is data
    changed = with_fields(data, {"d": True, "b": None})
    assert changed == b'{"a":2.0,"b":null,"d":true}'
    assert bytes(raw_fields(data)["b"]) == b'{ "c" : 1180591620717411303424 }'
