"""The state of one reply while it is being chosen.

Rule 1: each context is marked once a reply; a context that has occurred in it, or in assistant
turns of the request, takes private randomness.
Rule 2: a context is spent by the position that follows it, marked or not: the detector scores
the first one.
Rule 3: a score takes part in one race. That a continuation lost says that its scores were small;
used again in a later chunk, they would hold its tokens back once more.

Rule 4: reasoning before the answer is a reply of its own (`proxy.sampling.reasoning`).

Where the upstream continues text, the tokens are those into which the detector will cut the text
so far, and a seam can change them: what was chosen as two may be read as one. Then (`reread`)

Rule 5: the contexts of the text as it is now read are spent, not those of the text as it was
chosen: a context that the seam removed is free again, because the detector will not meet it ...
Rule 6: ... unless it was raced. Its numbers have chosen a token of this reply; at a second race
they would choose it again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from proxy.sampling.questions import UNREAD_TOKEN, Finish, Path
from proxy.sampling.reasoning import Part, Parts
from watermark.schemes import CopulaSampler, scores_from_levels
from watermark.seeding import KeyedUniforms, context_windows

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from numpy.typing import NDArray

    from proxy.sampling.candidates import CandidateList
    from proxy.sampling.questions import Continuation, TextPiece
    from watermark.seeding import ContextStream
    from watermark.text import Unit


def contexts_of(
    turns: Iterable[NDArray[np.uint32]], context_width: int
) -> frozenset[tuple[int, ...]]:
    """Return the contexts that earlier turns have spent.

    Args:
        turns: Unit ids of each assistant turn in the request.
        context_width: Number of preceding units in a context.
    """
    return frozenset(
        tuple(context)
        for turn in turns
        for context in context_windows(turn, context_width).tolist()
    )


class Reply:
    """Tokens chosen so far, contexts spent, and the randomness for the next choice.

    Attributes:
        tokens: The reply's token ids so far, end tokens left out.
        earlier: Contexts spent before it began.
        by_path: Number of tokens that each path chose; `NONE` once every budget was spent.
        rng: Private randomness of this reply alone.
        is_text: Whether the upstream continues text.
        text: The reply so far, where it does.
        n_tokens: Tokens that the upstream has written of it, end tokens left out.
    """

    __slots__ = (
        "_is_marking",
        "_keyed",
        "_max_tokens",
        "_parts",
        "_raced",
        "_repeats_seed",
        "_sampler",
        "_scored",
        "_spent",
        "_start",
        "_unit",
        "by_path",
        "earlier",
        "is_text",
        "n_tokens",
        "rng",
        "text",
        "tokens",
    )

    def __init__(
        self,
        keyed: KeyedUniforms,
        rng: np.random.Generator,
        *,
        max_tokens: int | None,
        repeats_seed: bool = False,
        earlier: Container[tuple[int, ...]] = frozenset(),
        is_text: bool = False,
        unit: Unit | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Start an empty reply.

        Args:
            keyed: The marking key's uniforms.
            rng: Private randomness of this reply alone.
            max_tokens: Longest reply; None for no bound of its own.
            repeats_seed: Whether the upstream's draws must repeat too (the client sent a seed).
            earlier: Contexts spent before it began; all choices of an answer share them.
            is_text: Whether the upstream continues text.
            unit: Cuts that text into tokens; None where no path needs them.
            parts: Tells reasoning from the answer; None where all is answer.
        """
        self._keyed = keyed
        self._sampler = CopulaSampler(keyed.record.rho)
        self._max_tokens = max_tokens
        self._repeats_seed = repeats_seed
        self.rng = rng
        self.tokens: list[int] = []
        self.is_text = is_text
        self.text = ""
        self.n_tokens = 0
        self._unit = unit
        self._raced: set[tuple[int, ...]] = set()
        self.by_path: Counter[Path] = Counter()
        self.earlier = earlier
        self._is_marking = True
        self._parts = parts or Parts(None)
        self._start = 0  # of the part that is being written, in tokens
        self._spent: set[tuple[int, ...]] = set()
        self._scored: set[tuple[tuple[int, ...], int]] = set()

    @property
    def context_width(self) -> int:
        """Number of preceding units in a context."""
        return self._keyed.record.context_width

    def __contains__(self, context: object) -> bool:
        """Return whether a context, in the key's unit, is spent."""
        return context in self._spent or context in self.earlier

    @property
    def is_silent(self) -> bool:
        """Whether the part that is being written is left unmarked: reasoning may be."""
        return not self._parts.is_marked

    @property
    def part(self) -> list[int]:
        """The tokens of the part that is being written: reasoning, or the answer."""
        return self.tokens[self._start :] if self._start else self.tokens

    def is_closed(self, one: Continuation) -> bool:
        """Return whether a continuation ends the part: by the text's end, or by a tag."""
        return one.finish is Finish.STOP or self._parts.closes(one.tokens) is not None

    def within_part(self, one: Continuation) -> Continuation:
        """Return a continuation up to the tag that ends the part; what follows is drawn anew."""
        place = self._parts.closes(one.tokens)
        if place is None or place == len(one.tokens) - 1:
            return one
        end = place + 1
        return replace(
            one, tokens=one.tokens[:end], logprobs=one.logprobs[:end], finish=Finish.LENGTH
        )

    def stop_marking(self) -> None:
        """Choose what is left with private randomness alone."""
        self._is_marking = False

    @property
    def is_full(self) -> bool:
        """Whether no further token fits."""
        return self._max_tokens is not None and self.n_tokens >= self._max_tokens

    def room(self, wanted: int) -> int:
        """Return how many of the wanted tokens still fit."""
        if self._max_tokens is None:
            return wanted
        return min(wanted, self._max_tokens - self.n_tokens)

    def bound(self, max_tokens: int) -> None:
        """Lower the number of tokens that fit."""
        if self._max_tokens is None or max_tokens < self._max_tokens:
            self._max_tokens = max_tokens

    def upstream_seed(self) -> int | None:
        """Return a seed for the upstream's next draws, None where they need not repeat."""
        return int(self.rng.integers(1 << 31)) if self._repeats_seed else None

    def stream(self) -> ContextStream | None:
        """Return the keyed uniforms at the next token, None where it is not marked."""
        context = tuple(self.part[-self.context_width :])
        is_short = len(context) < self.context_width
        if is_short or not self._is_keyed or context in self or UNREAD_TOKEN in context:
            return None
        return self._keyed.at(context)

    def choose(self, candidates: CandidateList, stream: ContextStream | None) -> int | None:
        """Race the candidates; return the winning token, None where "rest" wins."""
        uniforms = None
        if stream is not None:
            self._raced.add(tuple(self.part[-self.context_width :]))
            uniforms = stream.uniforms(candidates.tokens)
        winner = self._sampler.choose(
            candidates.weights, uniforms, self.rng, rest=candidates.rest or 0.0
        )
        return int(candidates.tokens[winner]) if winner < len(candidates.tokens) else None

    def extend(self, tokens: Sequence[int], path: Path = Path.NONE) -> None:
        """Add tokens that a path chose; whoever marked them spends their contexts."""
        self.tokens.extend(tokens)
        self.n_tokens += len(tokens)
        self.by_path[path] += len(tokens)
        before = len(self.tokens) - len(tokens)
        for place, token in enumerate(tokens, start=before + 1):
            if self._parts.add(token) is Part.TAG:
                self._start = place

    @property
    def _is_keyed(self) -> bool:
        """Whether the next token is chosen with the key."""
        return self._is_marking and not self.is_silent

    def extend_text(self, piece: TextPiece, path: Path, *, token: int | None = None) -> None:
        """Add text that a path chose.

        Args:
            piece: The text.
            path: The path.
            token: Its token; None where it is not told, until the text is read anew.
        """
        self.text += piece.text
        self.n_tokens += piece.n_tokens
        self.by_path[path] += piece.n_tokens
        if token is not None:
            self.tokens.append(token)

    def reread(self) -> None:
        """Cut the text anew, as the detector will; the next draft begins at a seam."""
        if self._unit is None:
            return
        ids = self._unit.encode(self.text)
        tokens = ids.tolist()
        if tokens != self.tokens:
            self.tokens = tokens
            self._spent = self._raced | contexts_of([ids], self.context_width)

    def spend(self, history: tuple[int, ...], units: tuple[int, ...]) -> None:
        """Spend the contexts before these units.

        Args:
            history: Units of the reply before them.
            units: Units delivered.
        """
        if self.is_silent:  # nobody will look for a mark there
            return
        width = self.context_width
        ids = (*history[-width:], *units)
        self._spent.update(ids[i - width : i] for i in range(width, len(ids)))

    def score(self, context: tuple[int, ...], unit: int) -> float | None:
        """Return the keyed score of a pair; None where it is not keyed, or was asked before."""
        if not self._is_keyed or (context, unit) in self._scored:
            return None
        self._scored.add((context, unit))
        stream = self._keyed.at(context)
        if stream is None:
            return None
        return float(scores_from_levels(stream.levels(np.array([unit], np.uint32)))[0])
