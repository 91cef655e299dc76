"""Generated tokens to text, piece by piece, with stop strings.

Rules:

1. What was handed out is never taken back: bytes of an unfinished character wait for the rest,
   and characters that may begin a stop string wait until it is clear that they do not.
2. The pieces joined are the text of the whole reply, streamed or not.
3. The reply is read in the context of its prompt: a character that the prompt left unfinished is
   finished here, and a first space is dropped only at the very start of a document.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.text.token_table import TokenTable

_LONGEST_CHARACTER_BYTES: Final = 4
_Decoder = codecs.getincrementaldecoder("utf-8")


class StopCutter:
    """The text of one reply as it grows, up to its stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.length = 0  # characters decoded so far, held ones included
        self.stopped_by: str | None = None  # the stop string that has come

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string has come; the text ended before it."""
        return self.stopped_by is not None

    def add_text(self, fresh: str) -> str:
        """Take some more characters and return the text that is now certain."""
        self.length += len(fresh)
        if not self._stop:
            return fresh
        text = self._held + fresh
        found = [(text.find(string), string) for string in self._stop if string in text]
        if found:
            place, self.stopped_by = min(found)
            self._held = ""
            return text[:place]
        keep = _possible_stop(text, self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """Return what was held back."""
        held, self._held = self._held, ""
        return held  # Nothing is held once a stop string has come.


class TextAssembler(StopCutter):
    """The text of one reply as it grows by tokens."""

    def __init__(self, table: TokenTable, prompt: Sequence[int], stop: Sequence[str]) -> None:
        super().__init__(stop)
        self._table = table
        self._decoder = _Decoder("replace")
        self._decoder.decode(_unfinished_tail(table, prompt))
        self._strip_first = table.strips_first_space and not any(
            table.content[token] for token in prompt if token < len(table.content)
        )

    def add(self, token: int) -> str:
        """Take one more token and return the text that is now certain."""
        content = self._table.content[token]
        if self._strip_first and content:
            content = content.removeprefix(b" ")
            self._strip_first = False
        return self.add_text(self._decoder.decode(content))

    def finish(self) -> str:
        """Return what was held back; an unfinished character becomes U+FFFD."""
        if self.is_stopped:
            return ""
        return self.add_text(self._decoder.decode(b"", final=True)) + super().finish()


def _possible_stop(text: str, stop: Sequence[str]) -> int:
    """Return the length of the longest end of `text` that begins a stop string."""
    for length in range(min(len(text), max(map(len, stop)) - 1), 0, -1):
        tail = text[len(text) - length :]
        if any(string.startswith(tail) for string in stop):
            return length
    return 0


def _unfinished_tail(table: TokenTable, prompt: Sequence[int]) -> bytes:
    """Return the bytes of a character that the prompt starts and does not finish."""
    tail = b""
    for token in reversed(prompt):
        if len(tail) >= _LONGEST_CHARACTER_BYTES or token in table.special:
            break
        if token < len(table.content):
            tail = table.content[token] + tail
    decoder = _Decoder("replace")
    decoder.decode(tail)
    pending, _flags = decoder.getstate()
    return pending
