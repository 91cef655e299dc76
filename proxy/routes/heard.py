"""What an answer that passes says: its texts, part by part, read beside the bytes.

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
    from watermark.wire.readings import Place

MAX_BYTES: Final = 16 * 1024 * 1024  # of a whole answer that is kept to be read at its end


class Heard:
    """Reads one answer in the client's dialect, streamed or not, whatever was asked for.

    Attributes:
        texts: What was said so far, text by text, in the order in which they began.
        completion_tokens: As the upstream counts them; 0 until it says.
    """

    def __init__(self, dialect: DialectName) -> None:
        """Begin before the first byte."""
        self._dialect = dialect
        self.texts: list[str] = []
        self.completion_tokens = 0
        self._places: dict[Place, int] = {}
        self._events = EventDecoder()
        self._is_whole: bool | None = None  # not known before its first byte that is no blank
        self._whole = bytearray()

    def feed(self, data: bytes) -> list[Piece]:
        """Read the next bytes; return the text of the events that they end."""
        if self._is_whole is None and data.strip():
            self._is_whole = data.lstrip().startswith(b"{")  # no line of an event begins so
        if self._is_whole:
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
        return self._read([bytes(self._whole)]) if self._is_whole else []

    def _read(self, parts: Iterable[bytes]) -> list[Piece]:
        pieces = []
        for data in parts:
            said = read_answer(self._dialect, data)
            if said.completion_tokens is not None:
                self.completion_tokens = said.completion_tokens
            pieces += [self._piece(place, text) for place, text in said.texts.items()]
        return pieces

    def _piece(self, place: Place, text: str) -> Piece:
        number = self._places.setdefault(place, len(self._places))
        if number == len(self.texts):
            self.texts.append("")
        before = self.texts[number]
        self.texts[number] = before + text
        return Piece(choice=number, token=UNREAD_TOKEN, text=text, text_offset=len(before))
