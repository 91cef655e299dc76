"""Server-sent events, as the OpenAI dialects write them.

Source: WHATWG HTML, 9.2.6 (interpreting an event stream).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

DONE: Final = b"data: [DONE]\n\n"
CONTENT_TYPE: Final = b"text/event-stream; charset=utf-8"
_encoder = msgspec.json.Encoder()


def json_event(body: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return one event whose data is a JSON value; JSON has no line ends, so it is one line."""
    return b"data: " + _encoder.encode(body) + b"\n\n"
