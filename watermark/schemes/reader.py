"""What a detector asks of a scheme: one key of it, ready to read texts.

A text goes through a reader in three steps. *Positions* are the places that the scheme can have
marked, and know no key. *Pairs* are what one key makes of them: a 64-bit identity each, by which
a pair is counted once over a whole family, and the draw that the scheme scores. The *statistic*
and its tail come last, from the pairs that are left.

Rule 1: two pairs get one identity if they share their draw, and only by chance (2^-64) otherwise:
leaving out a pair whose draw is there already is what independence asks for. Rule 2: which pairs
are left depends on equalities of the text, and on what is independent of the draws, never on a
draw. Rule 3: contexts are excluded here and nowhere else, by identities that :meth:`contexts`
gives, so that what is in view of a model is never scored.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from watermark.seeding import context_windows, pair_values, repeats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NO_CONTEXTS: Final[NDArray[np.uint64]] = np.zeros(0, np.uint64)
NO_CONTEXTS.flags.writeable = False


@dataclass(frozen=True, slots=True)
class NullLaw:
    """Where a scheme's p-values come from.

    Attributes:
        name: `gamma`, `hypoexponential`, `key space` (all keys enumerated) or `decoys`.
        score_mean: Mean of one pair's score under the null.
        score_sd: Its standard deviation.
        log_pvalue_floor: Natural log of the smallest p-value that the key space or the number of
            decoys supports; -inf where the law is exact without end.
    """

    name: str
    score_mean: float = 1.0
    score_sd: float = 1.0
    log_pvalue_floor: float = -math.inf


GAMMA: Final = NullLaw("gamma")
"""Scores are independent Exp(1), so that their sum over n is Gamma(n, 1)."""


@dataclass(frozen=True, slots=True)
class Positions:
    """The places of a reply that a scheme can have marked; free of any key.

    Attributes:
        contexts: Shape (n, context_width), the units before each place, oldest first.
        tokens: Shape (n,), the unit at each place.
    """

    contexts: NDArray[np.uint32]
    tokens: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True, repr=False)
class Pairs:
    """(context, token) pairs under one key; secret, so its repr is empty.

    Attributes:
        identities: Shape (n,); equal where the draw is the same one.
        draws: Shape (n,) or (n, k): what the scheme scores, the identities themselves where they
            are enough.
    """

    identities: NDArray[np.uint64]
    draws: NDArray[Any]

    def __repr__(self) -> str:
        """Show nothing: exact draws give the key's stream back."""
        return "<Pairs>"

    def __len__(self) -> int:
        return len(self.identities)

    def distinct(self) -> Pairs:
        """Return each pair once, the first of its kind."""
        repeated = repeats(self.identities)
        if repeated is None:
            return self
        is_first = ~repeated
        identities = self.identities[is_first]
        return Pairs(
            identities, identities if self.draws is self.identities else self.draws[is_first]
        )


class Reader(Protocol):
    """One key of one scheme."""

    @property
    def context_width(self) -> int:
        """Preceding units in a context."""
        ...

    def positions(self, ids: NDArray[np.uint32]) -> Positions:
        """Return the places of one reply that the scheme can have marked.

        Args:
            ids: The reply's unit ids, shape (n,), as `as_token_ids` gives them.
        """
        ...

    def contexts(self, ids: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the identity of every context that occurs in a text, its end included.

        What a model has in view is excluded by them.

        Args:
            ids: The text's unit ids, shape (n,).
        """
        ...

    def read(self, positions: Positions, *, excluded: NDArray[np.uint64] = NO_CONTEXTS) -> Pairs:
        """Return the pairs of one reply that count: the first token of each context, once each.

        Args:
            positions: Those of one reply.
            excluded: Identities of contexts that are not scored, from :meth:`contexts`.
        """
        ...

    def evaluate(self, positions: Positions) -> Pairs:
        """Return the pair of every position that this key could have marked, repeats and all.

        For positions that are known to be distinct: those of another key of the same scheme.
        """
        ...

    def statistic(self, pairs: Pairs) -> float:
        """Return the sum of the scores; larger speaks against the null."""
        ...

    def log_pvalue(self, statistic: float, pairs: Pairs) -> float:
        """Return the natural log of P(statistic or more) under the null, <= 0.

        Args:
            statistic: What :meth:`statistic` gave for the pairs.
            pairs: Distinct pairs.
        """
        ...

    def law(self, pairs: Pairs) -> NullLaw:
        """Return where the p-value of distinct pairs comes from."""
        ...

    def decoy(self, rng: np.random.Generator) -> Self:
        """Return the same scheme under a random key, drawn as its real keys are."""
        ...


def sliding_positions(ids: NDArray[np.uint32], context_width: int) -> Positions:
    """Return every position that has a whole context before it in the reply."""
    return Positions(context_windows(ids, context_width), ids[context_width:])


def all_windows(ids: NDArray[np.uint32], context_width: int) -> NDArray[np.uint32]:
    """Return every run of `context_width` units of a text, the last one too, shape (n, width)."""
    return context_windows(np.append(ids, ids[-1:]), context_width)


def counted(
    context_identities: NDArray[np.uint64], excluded: NDArray[np.uint64]
) -> NDArray[np.bool_] | None:
    """Return where a reply's contexts occur first and are not excluded; None for everywhere.

    Args:
        context_identities: Shape (n,).
        excluded: Identities that are left out, in any order.
    """
    left_out = repeats(context_identities)
    if len(excluded):
        is_excluded = np.isin(context_identities, excluded)
        left_out = is_excluded if left_out is None else left_out | is_excluded
    return None if left_out is None else ~left_out


def distinct_outside(pairs: Pairs, positions: Positions, excluded: NDArray[np.uint64]) -> Pairs:
    """Return each pair once whose context is not excluded.

    For schemes that mark a context whenever it comes, and tell contexts by `text_identities`.

    Args:
        pairs: Those of all positions.
        positions: Of one reply.
        excluded: Identities of contexts that are left out, in any order.
    """
    if len(excluded):
        counts = ~np.isin(text_identities(positions.contexts), excluded)
        pairs = Pairs(pairs.identities[counts], pairs.draws[counts])
    return pairs.distinct()


def text_identities(windows: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Return a 64-bit identity of every run of units, shape (n,), that depends on no key.

    For schemes whose own context hash is too narrow to tell contexts apart.

    Args:
        windows: Shape (n, width).
    """
    found = np.zeros(len(windows), np.uint64)
    for column in range(windows.shape[1]):
        found = pair_values(found, windows[:, column])
    return found


def text_decoys(pairs: Pairs, label: str, count: int) -> NDArray[np.uint64]:
    """Return `count` random words for decoy keys, drawn from the pairs that are tested.

    Whoever recomputes the test draws the same ones, and nobody can make a text to suit them.
    """
    digest = hashlib.shake_256(b"output-watermark/v1/decoys/" + label.encode())
    digest.update(np.sort(pairs.identities).astype("<u8").tobytes())
    return np.frombuffer(digest.digest(8 * count), np.dtype("<u8"))


def join(parts: Sequence[Pairs]) -> Pairs:
    """Return the distinct pairs of several replies that are tested together.

    Args:
        parts: At least one, each as :meth:`Reader.read` gave it.
    """
    if len(parts) == 1:
        return parts[0]
    identities = np.concatenate([part.identities for part in parts])
    if all(part.draws is part.identities for part in parts):
        return Pairs(identities, identities).distinct()
    return Pairs(identities, np.concatenate([part.draws for part in parts])).distinct()
