"""What an answer that passes says: its text, choice by choice, read beside the bytes.

The bytes are not touched. What cannot be read is no text; whoever follows the text learns less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from proxy.sampling.questions import UNREAD_TOKEN
from watermark.errors import WireError
from watermark.wire.openai_answers import Piece
from watermark.wire.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES: Final = 16 * 1024 * 1024  # of a whole answer that is kept to be read at its end


class _Said(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Said | None = None
    delta: _Said | None = None

    @property
    def said(self) -> str:
        """Its text, or the next part of it."""
        part = self.message or self.delta or _Said()
        return self.text or part.content or ""


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


class Heard:
    """Reads one OpenAI answer, whole or streamed.

    Attributes:
        texts: What was said so far, by choice.
        completion_tokens: As the upstream counts them; 0 until it says.
    """

    def __init__(self, *, is_streamed: bool) -> None:
        """Begin before the first byte."""
        self.texts: dict[int, str] = {}
        self.completion_tokens = 0
        self._events = EventDecoder() if is_streamed else None
        self._whole = b""

    def feed(self, data: bytes) -> list[Piece]:
        """Read the next bytes of a stream; return the text in them."""
        if self._events is None:
            if len(self._whole) <= MAX_BYTES:
                self._whole += data
            return []
        try:
            events = self._events.feed(data)
        except WireError:
            return []
        return self._read(event.data.encode() for event in events if not event.is_done)

    def finish(self) -> list[Piece]:
        """Return the text of an answer that is not streamed."""
        return self._read([self._whole]) if self._events is None else []

    def _read(self, parts: Iterable[bytes]) -> list[Piece]:
        pieces = []
        for data in parts:
            try:
                answer = msgspec.json.decode(data, type=_Answer)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if answer.usage is not None:
                self.completion_tokens = answer.usage.completion_tokens or 0
            pieces += [self._piece(choice) for choice in answer.choices if choice.said]
        return pieces

    def _piece(self, choice: _Choice) -> Piece:
        before = self.texts.get(choice.index, "")
        self.texts[choice.index] = before + choice.said
        return Piece(
            choice=choice.index, token=UNREAD_TOKEN, text=choice.said, text_offset=len(before)
        )
