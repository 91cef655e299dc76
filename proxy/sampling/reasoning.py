"""What a model says before its answer: reasoning, between a start and an end of its own.

Rule 1: the answer is a reply of its own: no context reaches from the reasoning into it (SEEDING).
Rule 2: reasoning takes private randomness unless the operator has it marked; its contexts are
then spent for the answer too, since each context is marked once. Rule 3: there is one reasoning, at
the beginning: a model that writes about tags later writes text.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAST_TOKENS: Final = 4  # a template opens the reasoning at the very end, with a line break or two


class Part(enum.Enum):
    """What a token belongs to."""

    REASONING = enum.auto()
    TAG = enum.auto()
    ANSWER = enum.auto()


@dataclass(frozen=True, slots=True)
class Tags:
    """The tokens between which a model reasons.

    Attributes:
        start: Begins it; a chat template may have written it already.
        end: Ends it.
        is_marked: Whether what lies between is marked.
    """

    start: int
    end: int
    is_marked: bool = False

    def is_open(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt ends within a reasoning that it has begun."""
        last = [token for token in prompt[-_LAST_TOKENS:] if token in (self.start, self.end)]
        return bool(last) and last[-1] == self.start


class Parts:
    """Tells the parts of one reply apart, token by token.

    Attributes:
        is_reasoning: Whether the next token is part of the reasoning, or ends it.
    """

    __slots__ = ("_is_first", "_tags", "is_reasoning")

    def __init__(self, tags: Tags | None, *, is_open: bool = False) -> None:
        """Begin before the first token.

        Args:
            tags: None where the model does not reason.
            is_open: Whether the prompt has begun the reasoning.
        """
        self._tags = tags
        self._is_first = True
        self.is_reasoning = is_open

    @property
    def is_marked(self) -> bool:
        """Whether the next token is to be marked."""
        return not self.is_reasoning or (self._tags is not None and self._tags.is_marked)

    def is_tag(self, token: int, *, is_first: bool | None = None) -> bool:
        """Return whether a token would begin or end the reasoning, were it the next.

        Args:
            token: The token.
            is_first: Whether it is the reply's first; None for as many as there were.
        """
        if self._tags is None:
            return False
        if self.is_reasoning:
            return token == self._tags.end
        return token == self._tags.start and (self._is_first if is_first is None else is_first)

    def add(self, token: int) -> Part:
        """Take the next token; return what it belongs to."""
        is_tag = self.is_tag(token)
        self._is_first = False
        if is_tag:
            self.is_reasoning = not self.is_reasoning
            return Part.TAG
        return Part.REASONING if self.is_reasoning else Part.ANSWER

    def closes(self, tokens: Sequence[int]) -> int | None:
        """Return the place of the first token that would begin or end the reasoning."""
        if self._tags is None:
            return None
        first = self._is_first
        places = (
            place
            for place, token in enumerate(tokens)
            if self.is_tag(token, is_first=first and place == 0)
        )
        return next(places, None)
