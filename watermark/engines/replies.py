"""What of a reply decides whether its next position is marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ReplyContexts:
    """One reply's contexts, as they come: each is given out once.

    Args:
        context_width: Preceding tokens in a context.
        prompt: Tokens in the model's view before the reply; their contexts are never given out.
        breaks: Tokens after which a reply of its own starts, as special tokens are.
    """

    __slots__ = ("_breaks", "_recent", "_spent", "_width")

    def __init__(
        self,
        context_width: int,
        *,
        prompt: Sequence[int] = (),
        breaks: frozenset[int] = frozenset(),
    ) -> None:
        self._width = context_width
        self._breaks = breaks
        self._recent: tuple[int, ...] = ()
        # Runs of the prompt, by zipping it with itself shifted: a few microseconds a hundred.
        self._spent = set(zip(*(prompt[start:] for start in range(context_width)), strict=False))

    def extend(self, token: int) -> None:
        """Take a token that the reply got."""
        if token in self._breaks:
            self._recent = ()
        else:
            self._recent = (*self._recent, token)[-self._width :]

    def take(self) -> tuple[int, ...] | None:
        """Return the context of the next position and spend it; None where it is not marked."""
        if len(self._recent) < self._width or self._recent in self._spent:
            return None
        self._spent.add(self._recent)
        return self._recent
