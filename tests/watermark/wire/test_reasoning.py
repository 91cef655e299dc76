"""Traces are left out of answers in every dialect, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.streams import STREAMS
from watermark.errors import WireError
from watermark.wire import reasoning
from watermark.wire.openai_requests import DialectName
from watermark.wire.reasoning import trace_filter
from watermark.wire.sse import EventDecoder, EventSplitter, typed_event

TRACE = "zebrafish"  # in every trace, and nowhere else
CHAT, TEXT = DialectName.CHAT, DialectName.TEXT
RESPONSES, MESSAGES = DialectName.RESPONSES, DialectName.MESSAGES


def choice(**said: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "finish_reason": None} | said]}


LISTED = {"content": [{"token": TRACE, "logprob": -0.1}]}
ITEM = {"type": "reasoning", "id": "rs", "encrypted_content": "sealed"}
MESSAGE_ITEM = {"type": "message", "content": [{"type": "output_text", "text": "said"}]}
THOUGHT = {"type": "thinking", "thinking": TRACE, "signature": "sealed"}
# Dialect, an answer or an event with a trace, the same without.
TRACED: list[tuple[DialectName, dict[str, Any], dict[str, Any]]] = [
    *(
        (
            CHAT,
            choice(message={"content": "said", name: value}, logprobs=LISTED, token_ids=[1]),
            choice(message={"content": "said"}, logprobs=None, token_ids=None),
        )
        for name, value in {
            "reasoning_content": TRACE,
            "reasoning": TRACE,
            "reasoning_details": [{"type": "reasoning.text", "text": TRACE}],
            "thinking": TRACE,
            "thinking_blocks": [THOUGHT],
        }.items()
    ),
    (CHAT, choice(delta={"reasoning_content": TRACE}), choice(delta={})),
    (
        CHAT,
        choice(
            delta={
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": TRACE}]},
                    {"type": "text", "text": "said"},
                ]
            }
        ),
        choice(delta={"content": [{"type": "text", "text": "said"}]}),
    ),
    (TEXT, choice(text="said", reasoning=TRACE), choice(text="said")),
    (
        MESSAGES,
        {"type": "message", "content": [THOUGHT, {"type": "text", "text": "said"}]},
        {
            "type": "message",
            "content": [THOUGHT | {"thinking": ""}, {"type": "text", "text": "said"}],
        },
    ),
    (
        MESSAGES,
        {"type": "content_block_start", "index": 0, "content_block": THOUGHT},
        {"type": "content_block_start", "index": 0, "content_block": THOUGHT | {"thinking": ""}},
    ),
    (
        MESSAGES,
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": TRACE}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": ""}},
    ),
    (
        RESPONSES,
        {
            "object": "response",
            "output": [
                ITEM
                | {
                    "summary": [{"type": "summary_text", "text": TRACE}],
                    "content": [{"type": "reasoning_text", "text": TRACE}],
                },
                MESSAGE_ITEM,
            ],
        },
        {"object": "response", "output": [ITEM | {"summary": [], "content": []}, MESSAGE_ITEM]},
    ),
    (
        RESPONSES,
        {"type": "response.completed", "response": {"output": [ITEM | {"summary": [TRACE]}]}},
        {"type": "response.completed", "response": {"output": [ITEM | {"summary": []}]}},
    ),
    (
        RESPONSES,
        {"type": "response.output_item.done", "item": ITEM | {"content": [TRACE]}},
        {"type": "response.output_item.done", "item": ITEM | {"content": []}},
    ),
    *(
        (
            RESPONSES,
            {"type": f"response.{kind}", "sequence_number": 3} | field(TRACE),
            {"type": f"response.{kind}", "sequence_number": 3} | field(""),
        )
        for kind, field in (
            ("reasoning_text.delta", lambda text: {"delta": text}),
            ("reasoning_text.done", lambda text: {"text": text}),
            ("reasoning_summary_text.delta", lambda text: {"delta": text}),
            ("reasoning_summary_text.done", lambda text: {"text": text}),
            (
                "reasoning_summary_part.added",
                lambda text: {"part": {"type": "summary_text", "text": text}},
            ),
            ("content_part.done", lambda text: {"part": {"type": "reasoning_text", "text": text}}),
        )
    ),
]


def filtered(dialect: DialectName, data: bytes, *, is_streamed: bool, cut: int = 1 << 20) -> bytes:
    one = trace_filter(dialect, is_streamed=is_streamed)
    parts = [one.feed(data[start : start + cut]) for start in range(0, len(data), cut)]
    return b"".join([*parts, one.finish()])


@pytest.mark.parametrize(("dialect", "traced", "clear"), TRACED)
def test_traces_are_left_out(
    dialect: DialectName, traced: dict[str, Any], clear: dict[str, Any]
) -> None:
    assert json.loads(filtered(dialect, json.dumps(traced).encode(), is_streamed=False)) == clear
    data = (
        b"id: 7\nevent: e\ndata: %s\n\ndata: [DONE]\n\n"
        % json.dumps(traced, indent=1).replace("\n", "\ndata: ").encode()
    )
    for cut in (1, 7, 1 << 20):
        left = filtered(dialect, data, is_streamed=True, cut=cut)
        event, done = EventDecoder().feed(left)
        assert (json.loads(event.data), event.kind, done.is_done) == (clear, "e", True)
        assert left.startswith(b"id: 7\n")
        assert TRACE.encode() not in left


@pytest.mark.parametrize(("dialect", "clear"), [(one[0], one[2]) for one in TRACED])
def test_what_has_no_trace_is_left_as_it_came(dialect: DialectName, clear: dict[str, Any]) -> None:
    data = b" " + json.dumps(clear, indent=1).encode() + b"\n"
    assert filtered(dialect, data, is_streamed=False) == data
    assert filtered(dialect, typed_event({"type": "t"} | clear), is_streamed=True) == typed_event(
        {"type": "t"} | clear
    )


@pytest.mark.parametrize("name", STREAMS)
def test_the_other_events_of_a_stream_keep_their_bytes(name: str) -> None:
    path, events = STREAMS[name]
    dialect = DialectName.of_path(path)
    assert dialect is not None
    whole = b"".join(events)
    kept = b"".join(one for one in events if b"reasoning" not in one)
    for cut in (1, 5, len(whole)):
        left = filtered(dialect, whole, is_streamed=True, cut=cut)
        changed = [one for one in EventSplitter().feed(left + b":") if one not in events]
        assert all(b'"delta":{}' in one for one in changed)
        for one in changed:
            left = left.replace(one, b"")
        assert left == kept


@given(st.lists(st.sampled_from([b"data: a", b"\n", b"\r", b"\r\n", b":", b"b"])), st.data())
def test_a_stream_is_cut_behind_its_events_wherever_its_chunks_end(
    parts: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    splitter = EventSplitter()
    pieces = [
        piece
        for start, end in zip([0, *places], [*places, len(whole)], strict=True)
        for piece in splitter.feed(whole[start:end])
    ]
    pieces += splitter.feed(b":")
    joined = b"".join(pieces)
    assert whole.startswith(joined)
    assert EventDecoder().feed(joined + b"x") == EventDecoder().feed(whole + b"x")
    for piece in pieces:
        assert len(EventDecoder().feed(piece + b"x")) <= 1


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'"' + TRACE.encode(), b"[" * 100_000])
def test_what_cannot_be_read_does_not_go_out(data: bytes) -> None:
    with pytest.raises(WireError, match="not JSON"):
        filtered(CHAT, data, is_streamed=False)
    if data:
        with pytest.raises(WireError, match=r"not JSON|not UTF-8"):
            filtered(CHAT, b"data: " + data + b"\n\n", is_streamed=True)


def test_what_breaks_off_within_an_event_ends_before_it() -> None:
    whole = b'data: {"choices": []}\n\n'
    assert filtered(CHAT, whole + b'data: {"choices": [{"del', is_streamed=True) == whole


def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning, "MAX_BYTES", 100)
    with pytest.raises(WireError, match="exceeds 100 bytes"):
        filtered(CHAT, b"[" + b" " * 100 + b"]", is_streamed=False)


@pytest.mark.parametrize("body", [[], 1, {"choices": 1}, {"choices": [1, {"delta": "x"}]}])
def test_other_forms_are_nobodys_trace(body: object) -> None:
    data = json.dumps(body).encode()
    for dialect in DialectName:
        assert filtered(dialect, data, is_streamed=False) == data
