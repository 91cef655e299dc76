"""How much a path may cost before the next cheaper one takes over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.sampling.questions import Drafted


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """Limits of one path for one reply; None for none.

    Attributes:
        requests: Upstream requests.
        tokens: Tokens that the upstream generates.
        seconds: Time spent waiting for the upstream; a client that is slow to read costs none.
    """

    requests: int | None = None
    tokens: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Budget:
    """What one path has spent of its limits.

    Attributes:
        limits: The limits.
        clock: Seconds on a clock that never goes back.
        requests: Upstream requests so far.
        tokens: Tokens generated so far.
        seconds: Time waited so far.
    """

    limits: BudgetLimits
    clock: Callable[[], float]
    requests: int = 0
    tokens: int = 0
    seconds: float = 0.0
    _asked_at: float = field(init=False, default=0.0)

    def begin(self) -> None:
        """Note that a request goes out."""
        self._asked_at = self.clock()

    def charge(self, answer: Drafted) -> None:
        """Count one answered request."""
        self.requests += answer.requests
        self.tokens += answer.n_tokens
        self.seconds += self.clock() - self._asked_at

    @property
    def is_spent(self) -> bool:
        """Whether a limit is reached."""
        limits = self.limits
        return (
            (limits.requests is not None and self.requests >= limits.requests)
            or (limits.tokens is not None and self.tokens >= limits.tokens)
            or (limits.seconds is not None and self.seconds >= limits.seconds)
        )
