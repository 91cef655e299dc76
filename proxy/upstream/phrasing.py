"""How a probe puts a whole question: with no more said of sampling than the model takes.

Hosted models refuse what they do not let a client choose (400): Claude 4.7 and later a temperature,
OpenAI's models that reason a temperature and `max_tokens`. Clients leave it out, and so does a
probe.

Source: UPSTREAMS 2.7.
"""

from __future__ import annotations

import enum
from typing import Any, Final

MOST_N: Final = (64, 16, 8, 4, 2)
FEW_N: Final = (4, 2)  # where nothing bounds what each of them costs


class Phrasing(enum.StrEnum):
    """What a whole question says of sampling, in the order in which it is tried."""

    FULL = "with temperature and max_tokens"
    WARM = "with max_tokens, without temperature"
    LATER = "with max_completion_tokens, without temperature"
    BARE = "with neither temperature nor a bound of length"

    @property
    def limit(self) -> str:
        """The field that bounds the reply; empty for none."""
        known = {Phrasing.LATER: "max_completion_tokens", Phrasing.BARE: ""}
        return known.get(self, "max_tokens")

    @property
    def numbers(self) -> tuple[int, ...]:
        """How many choices of one request to try, most first."""
        return MOST_N if self.limit else FEW_N

    def fields(self, *, temperature: float, max_tokens: int) -> dict[str, Any]:
        """Return what is said of a temperature and a length."""
        said: dict[str, Any] = {self.limit: max_tokens} if self.limit else {}
        return said | ({"temperature": temperature} if self is Phrasing.FULL else {})
