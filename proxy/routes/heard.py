"""What an answer that passes says: its text, choice by choice, read beside the bytes.

The bytes are not touched. What cannot be read is no text; whoever follows the text learns less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.sampling.questions import UNREAD_TOKEN
from watermark.errors import WireError
from watermark.wire.openai_answers import Piece
from watermark.wire.readings import read_answer
from watermark.wire.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watermark.wire.openai_requests import DialectName

MAX_BYTES: Final = 16 * 1024 * 1024  # of a whole answer that is kept to be read at its end


class Heard:
    """Reads one answer, whole or streamed, in the client's dialect.

    Attributes:
        texts: What was said so far, by choice.
        completion_tokens: As the upstream counts them; 0 until it says.
    """

    def __init__(self, dialect: DialectName, *, is_streamed: bool) -> None:
        """Begin before the first byte."""
        self._dialect = dialect
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
            said = read_answer(self._dialect, data)
            if said.completion_tokens is not None:
                self.completion_tokens = said.completion_tokens
            pieces += [self._piece(choice, text) for choice, text in said.texts.items()]
        return pieces

    def _piece(self, choice: int, text: str) -> Piece:
        before = self.texts.get(choice, "")
        self.texts[choice] = before + text
        return Piece(choice=choice, token=UNREAD_TOKEN, text=text, text_offset=len(before))
