"""The pairs of an audit: distinct over all of its sessions, and free of any key.

Rule 1: one collector serves a whole audit and one context width: what was counted in a session
is not counted again in another. Rule 2: of a context the first token in an answer counts. Rule 3:
what is in view is left out, by `View`. All of it looks at texts only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.detection.distinct_pairs import distinct_pairs
from watermark.errors import AuditDesignError
from watermark.schemes import text_identities
from watermark.seeding import context_windows, pair_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from watermark.radioactivity.view import Passage, View

LEVELS: Final = 32
"""Different weights that a pair can have: few keep the exact tail fast, and lose nothing."""

MOST_MASS: Final = 1.001
"""Of a distribution as a suspect tells it, rounded."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Observation:
    """What one answer adds to an audit.

    Attributes:
        contexts: Shape (n, context_width).
        tokens: Shape (n,).
        shares: How much of the suspect's choice each token is, in (0, 1], in steps of 1/32; 1
            where the suspect said it, or it is its likeliest. Shape (n,).
        n_units: Units in the answer.
    """

    contexts: NDArray[np.uint32]
    tokens: NDArray[np.uint32]
    shares: NDArray[np.float64]
    n_units: int

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.tokens)

    def __repr__(self) -> str:
        """Show nothing of the text."""
        return f"<Observation of {len(self)} pairs>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Choices:
    """What a suspect would say at one position: tokens, and how likely each is.

    Attributes:
        tokens: Ids in the key's unit, distinct, shape (m,).
        probabilities: Theirs, each in (0, 1], with a sum of at most 1; shape (m,). What is
            missing to 1 counts as what the null expects.
    """

    tokens: NDArray[np.uint32]
    probabilities: NDArray[np.float64]

    def __post_init__(self) -> None:
        fits = len(self.tokens) == len(self.probabilities) == len(set(self.tokens.tolist()))
        p = self.probabilities
        if not fits or not ((p >= 0) & (p <= 1)).all() or p.sum() > MOST_MASS:
            raise AuditDesignError(
                "a suspect's choices are distinct tokens with probabilities of sum 1 at most; "
                "this one's are not, so leave the position out"
            )

    def likeliest(self) -> Choices:
        """Return the first of the likeliest tokens alone, with the whole probability."""
        if not len(self.tokens):
            return self
        best = int(np.argmax(self.probabilities))
        return Choices(tokens=self.tokens[best : best + 1], probabilities=np.ones(1))


class PairCollector:
    """Takes answers in the order of an audit, and gives what each adds."""

    __slots__ = ("_seen", "view")

    def __init__(self, view: View) -> None:
        """Collect for the contexts outside a view."""
        self.view = view
        self._seen: set[int] = set()

    def answer(self, ids: NDArray[np.uint32]) -> Observation:
        """Return what an answer adds to a closed audit.

        Args:
            ids: The answer in the key's unit, shape (n,).
        """
        pairs = distinct_pairs([ids], self.view.context_width)
        counts = ~self.view.hides(pairs.contexts)
        counts &= self._is_new(pairs.contexts, pairs.tokens)
        tokens = pairs.tokens[counts]
        return Observation(
            contexts=pairs.contexts[counts],
            tokens=tokens,
            shares=np.ones(len(tokens)),
            n_units=len(ids),
        )

    def reading(self, passage: Passage, choices: Sequence[Choices | None]) -> Observation:
        """Return what a suspect's choices along a delivered passage add to an open audit.

        Args:
            passage: The text that it was given.
            choices: What it would say at each position of `passage.ids`, given all before; None
                where that is not known.

        Raises:
            AuditDesignError: There is not one entry a position.
        """
        if len(choices) != len(passage.ids):
            raise AuditDesignError(
                f"a passage of {len(passage.ids)} units was given {len(choices)} choices; give "
                "one a position, None where it is not known"
            )
        width = self.view.context_width
        known = [(int(p), one) for p in self.view.read(passage) if (one := choices[p]) is not None]
        windows = context_windows(passage.ids, width)
        sizes = [len(one.tokens) for _, one in known]
        places = np.repeat(np.array([p - width for p, _ in known], np.int64), sizes)
        tokens = np.concatenate([np.zeros(0, np.uint32), *(one.tokens for _, one in known)])
        shares = np.concatenate([np.zeros(0), *(one.probabilities for _, one in known)])
        shares = np.round(shares * LEVELS) / LEVELS
        kept = shares > 0
        return Observation(
            contexts=windows[places[kept]],
            tokens=tokens[kept],
            shares=shares[kept],
            n_units=len(passage.ids),
        )

    def _is_new(
        self, contexts: NDArray[np.uint32], tokens: NDArray[np.uint32]
    ) -> NDArray[np.bool_]:
        """Return which pairs no answer has had yet, and remember all."""
        values = pair_values(text_identities(contexts), tokens).tolist()
        is_new = np.array([value not in self._seen for value in values], np.bool_)
        self._seen.update(values)
        return is_new
