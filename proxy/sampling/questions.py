"""What a flow asks the upstream, what it is told, and what it gives out."""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watermark.wire.origins import Origin

UNREAD_TOKEN: Final = 0xFFFFFFFF
"""Text that is no one token of the configured tokenizer; no token has this id (SEEDING)."""


UNBOUNDED: Final = 1 << 31
"""Longer than any reply."""


class Path(enum.StrEnum):
    """How the mark gets in."""

    NONE = "none"
    NATIVE = "native"
    SPLICE = "splice"
    SELECT = "select"
    REPLY = "reply"
    BIAS = "bias"


class Finish(enum.StrEnum):
    """Why a reply ended, as the OpenAI dialects spell it."""

    STOP = "stop"
    LENGTH = "length"
    OTHER = "other"  # of whole replies only, whose upstream says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A request for continuations of the reply so far.

    Attributes:
        tokens: The reply so far, to be appended to the prompt.
        text: The same as text, where the upstream continues text.
        n: Number of independent continuations.
        max_tokens: Length of each; `UNBOUNDED` for whole replies of clients that name none.
        is_greedy: Take the likeliest token at each step instead of sampling; log-probabilities
            are still those of the client's temperature.
        logprobs: How many likeliest tokens to list a position; 0 for none.
        chosen: Tokens to list in place of the likeliest, distinct; none for the likeliest.
        bias: Additions to the logits by token id; -100 bans.
        seed: For the upstream's sampling; None leaves it free.
        path: What it is asked for; `NONE` once every budget is spent.
        is_whole: Whether whole replies are asked for: the client's own penalties and stop strings
            go with the question, and `tokens`, `text` and `bias` are empty or the client's.
    """

    tokens: tuple[int, ...]
    n: int
    max_tokens: int
    text: str = ""
    is_greedy: bool = False
    logprobs: int = 0
    chosen: tuple[int, ...] = ()
    bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    path: Path = Path.NONE
    is_whole: bool = False


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


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A part of a continuation that came as text.

    Attributes:
        text: Whole characters.
        n_tokens: Tokens that the upstream generated for it.
    """

    text: str
    n_tokens: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """One continuation as the upstream drew it.

    Attributes:
        tokens: Its tokens; a closing end token is the last of them. Of text, those that could be
            read, no end token among them; `UNREAD_TOKEN` closes them where one could not.
        finish: Why it stopped.
        logprobs: One list a token where they were asked for, else empty.
        pieces: Of text: one a token, or a single one where no tokens are told.
        generated: Of text: how many tokens it took, the end included.
        origin: Of a whole reply: what the upstream gave.
    """

    tokens: tuple[int, ...]
    finish: Finish
    logprobs: tuple[TokenLogprobs, ...] = ()
    pieces: tuple[TextPiece, ...] = ()
    generated: int | None = None
    origin: Origin | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens that the upstream generated for it."""
        return len(self.tokens) if self.generated is None else self.generated

    @property
    def text(self) -> str:
        """Its text, where it came as text."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Drafted:
    """The upstream's answer to a `Draft`.

    Attributes:
        continuations: As many as were asked for.
        prompt_tokens: Tokens that the upstream read, the reply so far among them; None where it
            does not say.
        room: Tokens that the context leaves after those; None where it is not known.
        requests: Requests that it took.
    """

    continuations: tuple[Continuation, ...]
    prompt_tokens: int | None = None
    room: int | None = None
    requests: int = 1

    @property
    def n_tokens(self) -> int:
        """Tokens that the upstream generated for it."""
        return sum(one.n_tokens for one in self.continuations)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One token of the reply, or a part of it that came as text.

    Attributes:
        token: Its id; an end token comes last and has no text.
        logprob: Its log-probability as the upstream gives it; None where not asked for.
        alternatives: The upstream's list at this position; None where not asked for.
        piece: What it adds to the text, where the upstream continues text.
        origin: What the upstream gave, where it is a whole reply.
    """

    token: int
    logprob: float | None = None
    alternatives: TokenLogprobs | None = None
    piece: TextPiece | None = None
    origin: Origin | None = None


Flow: TypeAlias = Generator[Draft | Chosen, Drafted | None, Finish | None]
