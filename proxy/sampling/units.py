"""How a key's unit reads a reply that grows by tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from watermark.text import complete_words, words
from watermark.text.words import word_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.sampling.reply import Reply
    from watermark.text import TokenTable


@dataclass(frozen=True, slots=True)
class TokenUnits:
    """The model's own tokens: each is a unit, complete at once."""

    def history(self, reply: Reply) -> tuple[int, ...]:
        """Return the reply's tokens."""
        return tuple(reply.tokens)

    def added(
        self,
        reply: Reply,  # noqa: ARG002 - the words need it
        tokens: tuple[int, ...],
        *,
        is_ended: bool,  # noqa: ARG002 - likewise
    ) -> tuple[int, ...]:
        """Return the tokens."""
        return tokens


@dataclass(frozen=True, slots=True)
class WordUnits:
    """`words/v1`: a word is complete once a separator follows it, or the text ends."""

    table: TokenTable

    def history(self, reply: Reply) -> tuple[int, ...]:
        """Return the ids of the reply's complete words."""
        return _ids(complete_words(self._text(reply.tokens)))

    def added(self, reply: Reply, tokens: tuple[int, ...], *, is_ended: bool) -> tuple[int, ...]:
        """Return the ids of the words that these tokens complete."""
        text = self._text([*reply.tokens, *tokens])
        whole = words(text) if is_ended else complete_words(text)
        return _ids(whole)[len(self.history(reply)) :]

    def _text(self, tokens: Sequence[int]) -> str:
        content = b"".join(self.table.content[token] for token in tokens)
        # An unfinished character at the end is not yet text.
        return content.decode("utf-8", "ignore")


def _ids(units: Sequence[str]) -> tuple[int, ...]:
    return tuple(word_id(unit) for unit in units)
