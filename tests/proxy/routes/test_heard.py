"""What is heard of an answer that passes, however it is cut and whatever was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.routes.heard import Heard
from watermark.wire.openai_requests import DialectName
from watermark.wire.sse import json_event

TWO: dict[str, Any] = {
    "choices": [
        {"index": 1, "message": {"content": [{"type": "text", "text": "é b"}]}},
        {"index": 0, "message": {"content": None, "tool_calls": [{}]}},
    ],
    "usage": {"completion_tokens": 5},
}


@pytest.mark.parametrize("blanks", [b"", b"\r\n"])
def test_an_answer_is_read_by_what_it_is_and_not_by_what_was_asked(blanks: bytes) -> None:
    """Some servers ignore `stream`, and some stream whatever is asked."""
    whole = blanks + json.dumps(TWO).encode()
    deltas = [{"index": 1, "delta": {"content": part}} for part in ("é", " ", "b")]
    stream = blanks + b"".join(json_event({"choices": [one]}) for one in deltas)
    for data in (whole, stream):
        heard = Heard(DialectName.CHAT)
        pieces = [p for i in range(len(data)) for p in heard.feed(data[i : i + 1])]
        pieces += heard.finish()
        assert heard.texts == ["é b"]  # choice 0 said nothing, so it has no text to be kept
        assert {piece.choice for piece in pieces} == {0}
        assert [piece.text_offset for piece in pieces] == [0, 1, 2][: len(pieces)]
        assert heard.completion_tokens == (5 if data is whole else 0)


def test_texts_of_several_items_are_apart() -> None:
    """A detector would make contexts of the seam that no engine had."""
    heard = Heard(DialectName.RESPONSES)
    for place, text in ((1, "a"), (3, "c"), (1, "b"), (3, "d")):
        kind = {"type": "response.output_text.delta", "output_index": place, "content_index": 0}
        heard.feed(json_event(kind | {"delta": text}))
    assert heard.texts == ["ab", "cd"]
