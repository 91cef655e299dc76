"""What a flow asks the upstream, what it is told, and what it gives out."""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Path(enum.StrEnum):
    """How the mark gets in."""

    NONE = "none"
    SPLICE = "splice"
    SELECT = "select"


class Finish(enum.StrEnum):
    """Why a reply ended, as the OpenAI dialects spell it."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A request for continuations of the reply so far.

    Attributes:
        tokens: The reply so far, to be appended to the prompt.
        n: Number of independent continuations.
        max_tokens: Length of each.
        is_greedy: Take the likeliest token at each step instead of sampling; log-probabilities
            are still those of the client's temperature.
        logprobs: How many likeliest tokens to list a position; 0 for none.
        bias: Additions to the logits by token id; -100 bans.
        seed: For the upstream's sampling; None leaves it free.
        path: What it is asked for; `NONE` once every budget is spent.
    """

    tokens: tuple[int, ...]
    n: int
    max_tokens: int
    is_greedy: bool = False
    logprobs: int = 0
    bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    path: Path = Path.NONE


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The likeliest tokens at one position.

    Attributes:
        ids: Token ids, shape (n,), no order promised; the sampled token is always among them.
        logprobs: Natural logs, shape (n,).
    """

    ids: NDArray[np.uint32]
    logprobs: NDArray[np.float64]

    def of(self, token: int) -> float | None:
        """Return the log-probability of a listed token, None of another."""
        found = np.flatnonzero(self.ids == token)
        return float(self.logprobs[found[0]]) if len(found) else None

    def without(self, token: int) -> TokenLogprobs:
        """Return the list less one token."""
        keep = self.ids != token
        return TokenLogprobs(self.ids[keep], self.logprobs[keep])

    def __len__(self) -> int:
        """Return how many tokens are listed."""
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """One continuation as the upstream drew it.

    Attributes:
        tokens: Its tokens; a closing end token is the last of them.
        finish: Why it stopped.
        logprobs: One list a token where they were asked for, else empty.
    """

    tokens: tuple[int, ...]
    finish: Finish
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Drafted:
    """The upstream's answer to a `Draft`."""

    continuations: tuple[Continuation, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens that the upstream generated for it."""
        return sum(len(one.tokens) for one in self.continuations)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One token of the reply.

    Attributes:
        token: Its id; an end token comes last and has no text.
        logprob: Its log-probability as the upstream gives it; None where not asked for.
        alternatives: The upstream's list at this position; None where not asked for.
    """

    token: int
    logprob: float | None = None
    alternatives: TokenLogprobs | None = None


Flow: TypeAlias = Generator[Draft | Chosen, Drafted | None, Finish | None]
