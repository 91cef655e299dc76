"""Which tokens outside the list of likeliest ones are worth asking for by name.

Rule: what is asked for at a position depends on tokens before it and on lists, never on this
context's keyed numbers nor on the draw that it is held against; else the race would favor it.
Within one reply each context is raced once, so lists of the reply's own past are independent of
the numbers to come.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container

    from proxy.sampling.questions import TokenLogprobs

_AFTER_BYTES: Final = 256  # ids of a byte-pair vocabulary: bytes, then merges, commonest first


class Tail:
    """Tokens that this reply's lists have held, most often listed first."""

    __slots__ = ("_count", "_seen", "_vocab_size")

    def __init__(self, count: int, vocab_size: int) -> None:
        """Ask for so many tokens of a vocabulary; 0 for none."""
        self._count = count
        self._vocab_size = vocab_size
        self._seen: Counter[int] = Counter()

    def note(self, listed: TokenLogprobs) -> None:
        """Remember a list at a position that is over."""
        if self._count:
            self._seen.update(listed.ids.tolist())

    def pick(self, taken: Container[int]) -> tuple[int, ...]:
        """Return distinct tokens, none of them taken; fewer where the vocabulary has no more."""
        start = min(_AFTER_BYTES, self._vocab_size)
        known = (token for token, _ in self._seen.most_common())
        picked: dict[int, None] = {}
        for token in chain(known, range(start, self._vocab_size), range(start)):
            if len(picked) == self._count:
                break
            if token not in taken:
                picked[token] = None
        return tuple(picked)
