"""Server-sent events: bytes to events and back, without I/O.

Rule 1: lines end with LF, CR or CRLF, and with nothing else: U+2028 inside JSON is data.
Rule 2: a blank line dispatches an event only where there is data.
Rule 3: memory is bounded; a peer that never ends an event is refused.

Source: WHATWG HTML, 9.2.6 (interpreting an event stream).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from watermark.errors import WireError

DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"  # a comment: no event, to whoever reads
CONTENT_TYPE: Final = b"text/event-stream; charset=utf-8"
EVENT_ENDS: Final = (
    b"\n\n",
    b"\r\r",
    b"\r\n\r\n",
    b"\n\r\n",
    b"\r\n\n",
)  # a line end, a blank line
LONGEST_END: Final = max(map(len, EVENT_ENDS))
MAX_EVENT_BYTES: Final = 16 * 1024 * 1024  # a list of the whole vocabulary takes some megabytes
_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")
_EVENT_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n|\Z))")
_LINES: Final = re.compile(rb"\r\n|\n|\r")
_encoder = msgspec.json.Encoder()


def json_event(body: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return one event whose data is a JSON value; JSON has no line ends, so it is one line."""
    return b"data: " + _encoder.encode(body) + b"\n\n"


def typed_event(body: dict[str, Any]) -> bytes:
    """Return one event of a dialect that names its events by the `type` of their data."""
    return b"event: " + str(body["type"]).encode() + b"\n" + json_event(body)


def with_data(event: bytes, data: bytes) -> bytes:
    """Return the bytes of an event with other data, of one line; its other fields are kept."""
    fields = [line for line in _LINES.split(event) if line and line.partition(b":")[0] != b"data"]
    return b"\n".join([*fields, b"data: " + data, b"", b""])


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event.

    Attributes:
        data: Its data lines, joined by line feeds.
        kind: Its type, `message` where none was sent.
    """

    data: str
    kind: str = "message"

    @property
    def is_done(self) -> bool:
        """Whether this is the OpenAI dialects' end of stream."""
        return self.data == "[DONE]"


class EventSplitter:
    """Cuts one stream behind its events; together the pieces are its bytes, as they came."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        """Start before the first byte."""
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Add bytes and return the events, comments and blank lines that they complete.

        Raises:
            WireError: An event is too large.
        """
        seen = max(0, len(self._buffer) - LONGEST_END)
        self._buffer += chunk
        pieces, start = [], 0
        for end in _EVENT_END.finditer(self._buffer, seen):
            pieces.append(bytes(self._buffer[start : end.end()]))
            start = end.end()
        del self._buffer[:start]
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise WireError(f"an event exceeds {MAX_EVENT_BYTES} bytes")
        return pieces


class EventDecoder:
    """Decodes one stream, however it is cut into chunks."""

    __slots__ = ("_buffer", "_data", "_is_begun", "_kind", "_max_bytes", "_size")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        """Start before the first byte."""
        self._buffer = b""
        self._data: list[bytes] = []
        self._kind = b""
        self._size = 0
        self._max_bytes = max_event_bytes
        self._is_begun = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Add bytes and return the events that they complete.

        Raises:
            WireError: An event is too large, or its data is not UTF-8.
        """
        self._buffer += chunk
        if not self._is_begun:
            if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
                return []
            self._is_begun = True
            self._buffer = self._buffer.removeprefix(_BOM)
        # A CR at the very end may be half of a CRLF: it waits.
        *lines, self._buffer = _LINE_END.split(self._buffer)
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._check(self._buffer)
        return events

    def _check(self, line: bytes) -> None:
        if self._size + len(line) > self._max_bytes:
            raise WireError(f"an event exceeds {self._max_bytes} bytes")

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        self._check(line)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"event":
            self._kind = value
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._kind
        self._data, self._kind, self._size = [], b"", 0
        if not data:
            return None
        try:
            return Event(b"\n".join(data).decode(), kind.decode() or "message")
        except UnicodeDecodeError as err:
            raise WireError(f"an event is not UTF-8 at byte {err.start}") from None
