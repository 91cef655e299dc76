"""Tokens as text shows them: which labels name one token, and which tokens may be raced.

An upstream that continues text names tokens by what they look like. A label names a token where
exactly one token of the configured tokenizer looks like that and it is whole characters;
everything else (parts of characters, twins) stays unread: such a token is never raced, and one
that the upstream draws is taken as it comes.

One pair of twins is told apart: a byte piece (`<0x2E>`) and the token that spells its character
(`.`). A tokenizer uses the piece only for what no token spells, so a model has never seen it and
gives it next to nothing; the label names the other. Should it be drawn all the same, the reply's
law is off by no more than its probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from proxy.sampling.candidates import CandidateList

if TYPE_CHECKING:
    from watermark.text import TokenTable

_REPLACEMENT = "\ufffd"  # what half a character looks like


class Spelling:
    """The labels of one tokenizer."""

    __slots__ = ("_by_text", "_specials", "_texts")

    def __init__(self, table: TokenTable) -> None:
        """Index a tokenizer's tokens by their text."""
        self._texts = tuple(_text_of(content) for content in table.content)
        self._by_text: dict[str, int | None] = {}
        for token, text in enumerate(self._texts):
            if text is not None and token not in table.byte_pieces:
                self._by_text[text] = None if text in self._by_text else token
        for token in table.byte_pieces:
            text = self._texts[token]
            if text is not None:
                self._by_text.setdefault(text, token)
        self._specials = {table.labels[token]: token for token in table.special}

    def read(self, label: str, data: bytes | None) -> int | None:
        """Return the token that a label names, None where it names no single one.

        Args:
            label: As the upstream shows the token.
            data: The token's bytes, where the upstream tells them.
        """
        text = label if data is None else _text_of(data)
        found = None if text is None else self._by_text.get(text)
        return self._specials.get(label) if found is None else found

    def is_special(self, token: int) -> bool:
        """Return whether a token that was read has no text of its own."""
        return self._texts[token] is None

    def text_of(self, token: int) -> str:
        """Return the text of a token that was read; none for special tokens."""
        return self._texts[token] or ""

    def raced(self, candidates: CandidateList) -> CandidateList:
        """Return the candidates that a text can hold.

        Tokens that end the text are left out, since an upstream may draw one and not list it.
        """
        keep = np.array([not self.is_special(token) for token in candidates.tokens.tolist()], bool)
        return CandidateList(candidates.tokens[keep], candidates.weights[keep], candidates.rest)


def _text_of(content: bytes) -> str | None:
    """Return a token's whole characters, None where it has none or only parts."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if text and _REPLACEMENT not in text else None
