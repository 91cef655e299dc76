"""The event stream codec against WHATWG HTML 9.2.6, however the bytes are cut."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.errors import WireError
from watermark.wire.sse import DONE, Event, EventDecoder, json_event

if TYPE_CHECKING:
    from collections.abc import Iterable


def decode(chunks: Iterable[bytes], *, limit: int = 1 << 20) -> list[Event]:
    decoder = EventDecoder(max_event_bytes=limit)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def each_byte(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


CASES: list[tuple[bytes, list[Event]]] = [
    (b"data: a\n\n", [Event("a")]),
    (b"data:a\n\n", [Event("a")]),
    (b"data:  a\n\n", [Event(" a")]),
    (b"data: a: b\n\n", [Event("a: b")]),
    (b"data\n\n", [Event("")]),
    (b"data: a\r\n\r\nx", [Event("a")]),
    (b"data: a\r\r\n", [Event("a")]),
    (b"data: a\rdata: b\n\r\n\n", [Event("a\nb")]),
    (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
    (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("a")]),
    (b": a comment\n\ndata: a\n: another\n\n", [Event("a")]),
    (b"id: 1\nretry: 5\n\n\n\ndata: a\n\n", [Event("a")]),
    (b"event: error\ndata: {}\n\n", [Event("{}", "error")]),
    (b"event: x\n\ndata: a\n\n", [Event("a")]),
    ("data: a\u2028b\u0085c\x0bd\n\n".encode(), [Event("a\u2028b\u0085c\x0bd")]),
    (b"data: [DONE]\n\n", [Event("[DONE]")]),
    (b"data: never ended\n", []),
    (b"datas: a\nDATA: b\n\n", []),
]


@pytest.mark.parametrize(("data", "events"), CASES)
def test_streams(data: bytes, events: list[Event]) -> None:
    assert decode([data]) == events
    assert decode(each_byte(data)) == events


PIECES = st.sampled_from(
    [
        *(b"data: ", b"data:", b"event: e", b"id: 1", b":c", b"x", "é\u2028".encode(), b" "),
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\xef\xbb\xbf", b"{}"),
    ]
)


@given(st.lists(PIECES, max_size=40).map(b"".join), st.data())
@settings(max_examples=150, deadline=None)
def test_no_cut_changes_the_events(data: bytes, cuts: st.DataObject) -> None:
    places = sorted(cuts.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    bounds = [0, *places, len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(bounds)]
    assert decode(chunks) == decode([data])


@given(st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_raise_nothing_else(chunks: list[bytes]) -> None:
    with contextlib.suppress(WireError):
        decode([*chunks, b"\n\n"], limit=64)


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
@settings(max_examples=40, deadline=None)
def test_json_comes_back(value: object) -> None:
    (event,) = decode(each_byte(json_event(value)))
    assert json.loads(event.data) == value


def test_the_end_is_recognized() -> None:
    (event,) = decode([DONE])
    assert event.is_done


@pytest.mark.parametrize(
    "data",
    [
        b"data: " + b"x" * 200,
        b"data: " + b"x" * 200 + b"\n\n",
        b"data: x\n" * 100,
        b"x" * 200,
        b"event: " + b"x" * 200 + b"\n",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_memory_is_bounded(data: bytes, size: int) -> None:
    chunks = [data[place : place + size] for place in range(0, len(data), size)]
    with pytest.raises(WireError, match="exceeds 100 bytes"):
        decode(chunks, limit=100)


def test_many_small_events_are_no_large_one() -> None:
    assert len(decode([b"data: x\n\n" * 1000], limit=100)) == 1000


def test_events_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(WireError, match="not UTF-8"):
        decode([b"data: \xff\n\n"])
