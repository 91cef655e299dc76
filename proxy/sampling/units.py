"""How a key's unit reads a reply that grows.

Each class reads the continuations of one draft at once: what they have in common is the history,
what each would add is its candidate. What a candidate's units are may depend on the text so far
and on the whole draft, never on the order of its continuations: then each still wins with
probability 1/m, given all of them (`watermark.schemes.trie_race`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from proxy.sampling.questions import Finish
from watermark.schemes import Candidate
from watermark.text import complete_words, words
from watermark.text.words import word_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from proxy.sampling.questions import Continuation
    from proxy.sampling.reply import Reply
    from watermark.text import TokenTable, Unit


@dataclass(frozen=True, slots=True)
class Reading:
    """The continuations of one draft in the key's unit.

    Attributes:
        history: Ids of the units before them.
        candidates: What each would add, in their order.
    """

    history: tuple[int, ...]
    candidates: tuple[Candidate, ...]


class Units(Protocol):
    """How the key's unit reads a reply that grows."""

    def read(self, reply: Reply, continuations: Sequence[Continuation]) -> Reading:
        """Return the reply so far and its continuations in units that are complete."""
        ...


@dataclass(frozen=True, slots=True)
class TokenUnits:
    """The model's own tokens: each is a unit, complete at once."""

    def read(self, reply: Reply, continuations: Sequence[Continuation]) -> Reading:
        """Return the part's tokens and the continuations', what ends them left out."""
        added = tuple(Candidate(_free(reply, one), reply.is_closed(one)) for one in continuations)
        return Reading(tuple(reply.part), added)


@dataclass(frozen=True, slots=True)
class WordUnits:
    """`words/v1`: a word is complete once a separator follows it, or the text ends.

    Attributes:
        table: What the tokens look like; None where the upstream continues text.
    """

    table: TokenTable | None

    def read(self, reply: Reply, continuations: Sequence[Continuation]) -> Reading:
        """Return the ids of the complete words."""
        before = _ids(complete_words(self._text(reply)))
        added = tuple(
            Candidate(self._words(reply, one)[len(before) :], reply.is_closed(one))
            for one in continuations
        )
        return Reading(before, added)

    def _words(self, reply: Reply, one: Continuation) -> tuple[int, ...]:
        text = self._text(reply, one)
        return _ids(words(text) if reply.is_closed(one) else complete_words(text))

    def _text(self, reply: Reply, one: Continuation | None = None) -> str:
        if self.table is None:
            return reply.text + (one.text if one else "")
        tokens = [*reply.part, *(_free(reply, one) if one else ())]
        content = b"".join(self.table.content[token] for token in tokens)
        # An unfinished character at the end is not yet text.
        return content.decode("utf-8", "ignore")


@dataclass(frozen=True, slots=True)
class SeamUnits:
    """Tokens of a text, as the detector will cut it.

    A continuation can merge with the text before it, so the history ends where the first of them
    begins to change it. What was raced already is not raced again (`Reply.score`), so a unit that
    a seam has not changed is not counted twice, and one that it has is a new one.

    Attributes:
        unit: The key's tokenizer.
    """

    unit: Unit

    def read(self, reply: Reply, continuations: Sequence[Continuation]) -> Reading:
        """Return the tokens that no continuation changes, and those after them."""
        before = np.array(reply.tokens, np.uint32)  # read anew when the draft was asked for
        whole = [self.unit.encode(reply.text + one.text) for one in continuations]
        common = min((_shared(before, ids) for ids in whole), default=len(before))
        added = tuple(
            Candidate(tuple(ids[common:].tolist()), _is_ended(one))
            for ids, one in zip(whole, continuations, strict=True)
        )
        return Reading(tuple(before[:common].tolist()), added)


def _shared(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> int:
    """Return how many leading ids two arrays share."""
    n = min(len(left), len(right))
    differs = np.flatnonzero(left[:n] != right[:n])
    return int(differs[0]) if len(differs) else n


def _is_ended(one: Continuation) -> bool:
    return one.finish is Finish.STOP


def _free(reply: Reply, one: Continuation) -> tuple[int, ...]:
    """Return a continuation's tokens without the one that ends it."""
    return one.tokens[:-1] if reply.is_closed(one) else one.tokens


def _ids(units: Sequence[str]) -> tuple[int, ...]:
    return tuple(word_id(unit) for unit in units)
