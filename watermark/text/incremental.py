"""Text of a growing list of tokens, given out only where it can no longer change.

Rule 1: a piece never ends inside a character: while the newest tokens decode to U+FFFD at the
end, their text waits.
Rule 2: the pieces, joined, are the text of all tokens read in the context of the prompt's tail,
so a tokenizer that marks word starts keeps its leading space.
Rule 3: work per token is constant: only tokens since the last clean cut are decoded again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPLACEMENT: Final = "�"
_TAIL_TOKENS: Final = 6  # enough for the longest character in bytes, and for a word's start


class Decoder(Protocol):
    """Anything that turns token ids into text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        ...


class IncrementalDecoder:
    """Decodes one reply, token by token."""

    __slots__ = ("_cut", "_decoder", "_ids", "_shown")

    def __init__(self, decoder: Decoder, prompt_ids: Sequence[int] = ()) -> None:
        """Start after a prompt.

        Args:
            decoder: Token ids to text.
            prompt_ids: The tokens before the reply; only their tail is read.
        """
        self._decoder = decoder
        self._ids = list(prompt_ids[-_TAIL_TOKENS:])
        self._cut = 0
        # A character that the prompt leaves unfinished is finished, and shown, by the reply.
        self._shown = len(decoder.decode(self._ids).rstrip(_REPLACEMENT))

    def feed(self, tokens: Sequence[int]) -> str:
        """Add tokens and return the text that has become certain."""
        self._ids.extend(tokens)
        text = self._decoder.decode(self._ids[self._cut :])
        if text.endswith(_REPLACEMENT):
            return ""
        piece = text[self._shown :]
        self._move_cut(len(text))
        return piece

    def finish(self) -> str:
        """Return what still waits, incomplete characters as U+FFFD; the reply is over."""
        text = self._decoder.decode(self._ids[self._cut :])
        piece = text[self._shown :]
        self._shown = len(text)
        return piece

    def _move_cut(self, shown: int) -> None:
        """Forget tokens before the tail where the tail alone decodes to a clean end."""
        tail = max(self._cut, len(self._ids) - _TAIL_TOKENS)
        text = self._decoder.decode(self._ids[tail:])
        if tail > self._cut and not text.startswith(_REPLACEMENT):
            self._cut, self._shown = tail, len(text)
        else:
            self._shown = shown
