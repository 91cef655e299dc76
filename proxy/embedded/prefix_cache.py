"""Which sequence lies in which slot of the key-value store, and what can be used again.

A slot holds the keys and values of one token sequence. A finished sequence stays until its slot is
needed, least recently used first, so that a request that repeats an earlier one up to its last
tokens computes only those. This table knows tokens, not tensors.

Rules:

1. The last token of a sequence is never taken from the store: its computation gives the logits.
2. A free slot that agrees but for a short tail is used where it stands; a longer tail may be
   wanted again, so the common part is copied to another slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHORT_TAIL_TOKENS: Final = 32
"""A rejected draft is a few tokens; losing them costs less than copying what they follow."""

_NO_TOKEN: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a sequence goes.

    Attributes:
        slot: Its slot, in use from now on.
        kept: Tokens whose keys and values are there, or will be once copied.
        source: Slot to copy the first `kept` tokens from; None where they are in place.
    """

    slot: int
    kept: int
    source: int | None


class SlotTable:
    """The sequences in `slots` slots of `width` tokens."""

    def __init__(self, slots: int, width: int) -> None:
        self._tokens = np.full((slots, width), _NO_TOKEN, dtype=np.int64)
        self._lengths = np.zeros(slots, dtype=np.int64)
        self._in_use = np.zeros(slots, dtype=np.bool_)
        self._last_used = np.zeros(slots, dtype=np.int64)
        self._clock = 0

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens with keys and values, per slot; a view."""
        return self._lengths

    def kept_tokens(self, tokens: Sequence[int]) -> int:
        """Return how many leading tokens of a sequence some slot holds."""
        return int(self._common(tokens).max(initial=0))

    def place(self, tokens: Sequence[int]) -> Placement:
        """Take a slot for a sequence; at least one must be free."""
        common = self._common(tokens)
        free = np.flatnonzero(~self._in_use)
        nearest = int(free[common[free].argmax()])
        best = int(common.argmax())
        kept = int(common[best])
        tail = int(self._lengths[nearest]) - int(common[nearest])
        if common[nearest] == kept > 0 and (tail <= SHORT_TAIL_TOKENS or len(free) == 1):
            slot, source = nearest, None
        else:
            slot = int(free[self._last_used[free].argmin()])
            source = best if kept and best != slot else None
        self._tokens[slot, :kept] = tokens[:kept]
        self._tokens[slot, kept:] = _NO_TOKEN
        self._lengths[slot] = kept
        self._in_use[slot] = True
        return Placement(slot=slot, kept=kept, source=source)

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """Record that the keys and values of `tokens` now follow in a slot."""
        begin = int(self._lengths[slot])
        self._tokens[slot, begin : begin + len(tokens)] = tokens
        self._lengths[slot] = begin + len(tokens)

    def release(self, slot: int) -> None:
        """Let a slot be taken by others; what it holds stays until then."""
        self._clock += 1
        self._last_used[slot] = self._clock
        self._in_use[slot] = False

    def _common(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        """Return per slot how many leading tokens it shares with all but the last of `tokens`."""
        wanted = np.array(tokens[:-1], dtype=np.int64)
        if not len(wanted):
            return np.zeros_like(self._lengths)
        differs = self._tokens[:, : len(wanted)] != wanted
        first: NDArray[np.int64] = differs.argmax(axis=1)
        first[~differs[np.arange(len(first)), first]] = len(wanted)
        return first
