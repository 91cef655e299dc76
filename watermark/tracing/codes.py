"""What a body of text says about every position of the accounts' codes.

Rule 1: of the positions with a context, the first of each context in a reply counts, and over the
body each (context, token) pair once; by segments, each code position in one segment only.
Rule 2: only positions of the account channel count.
Rule 3: the score is antisymmetric and integer: u and 1 - u have opposite scores, exactly.

Source: `watermark/spec/seeding.md`, Route to channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import TextTooShortError
from watermark.keys import LABEL_CONTEXT
from watermark.seeding import (
    CODE_POSITIONS,
    ContextPRF,
    as_token_ids,
    code_indices,
    context_windows,
    first_occurrences,
    is_account_channel,
    mix64,
    pair_levels,
    pair_values,
)
from watermark.seeding.uniforms import LEVEL_BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from watermark.keys import KeyRecord

    TokenIds = Sequence[int] | NDArray[Any]

_SCORE_BITS: Final = 3  # eight levels keep 98.4% of the information of 2u - 1, in three digits
_SCORE_SHIFT: Final = np.uint64(LEVEL_BITS - _SCORE_BITS)
SEGMENT_UNITS: Final = 512  # a reply that is longer may be of several accounts
SCORES: Final = np.arange(1 - (1 << _SCORE_BITS), 1 << _SCORE_BITS, 2)  # -7, -5 ... 7


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SegmentSums:
    """A body cut into segments, each code position in one of those that have it.

    Attributes:
        positions: Code positions, those of one segment together, shape (m,).
        sums: The sum of the scores of the segment's pairs at each, shape (m,).
        starts: Where each segment begins in them, shape (s,).
    """

    positions: NDArray[np.int64]
    sums: NDArray[np.int64]
    starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CodeSums:
    """A body of text, summed over the code positions.

    Attributes:
        record: The key whose account channel was read.
        positions: Code positions with a sum that is not 0, ascending, shape (m,).
        sums: Their sums of scores, shape (m,); secret as scores are.
        segments: Runs of the body that one account may have been served, position by position.
        n_tokens: Units in the body.
        n_scored: Pairs that count.
    """

    record: KeyRecord
    positions: NDArray[np.int64]
    sums: NDArray[np.int64]
    segments: SegmentSums
    n_tokens: int
    n_scored: int

    def __repr__(self) -> str:
        """Show no sum."""
        return f"<CodeSums of {self.n_scored} pairs under {self.record.key_id!r}>"


def code_sums(record: KeyRecord, replies: Iterable[TokenIds]) -> CodeSums:
    """Read the account channel of a key in a body of text.

    Args:
        record: The key.
        replies: Unit ids of each reply or document; no context reaches from one into the next.

    Raises:
        TextTooShortError: No reply holds a position with a whole context before it.
        TokenIdError: An id is out of range.
    """
    prf = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16))
    parts = [_pairs(record, prf, as_token_ids(reply)) for reply in replies]
    n_tokens = sum(part.n_tokens for part in parts)
    if not any(part.n_contexts for part in parts):
        width = record.context_width
        raise TextTooShortError(
            f"nothing to score: {n_tokens} units, and a reply needs at least {width + 1} at "
            f"context width {width}; pass a longer text"
        )
    values = np.concatenate([part.values for part in parts])
    indices = np.concatenate([part.indices for part in parts]).astype(np.int64)
    scores = SCORES[(pair_levels(values) >> _SCORE_SHIFT).astype(np.int64)]
    is_first = first_occurrences(values)
    sums = np.bincount(indices[is_first], scores[is_first], CODE_POSITIONS).astype(np.int64)
    positions = np.flatnonzero(sums)
    return CodeSums(
        record=record,
        positions=positions,
        sums=sums[positions],
        segments=_segment_sums(indices, scores, _number_segments(parts)),
        n_tokens=n_tokens,
        n_scored=int(is_first.sum()),
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The pairs of one reply that may count."""

    values: NDArray[np.uint64]
    indices: NDArray[np.uint16]
    segments: NDArray[np.int64]
    n_tokens: int
    n_contexts: int


def _pairs(record: KeyRecord, prf: ContextPRF, ids: NDArray[np.uint32]) -> _Pairs:
    width = record.context_width
    contexts = context_windows(ids, width)
    streams, routes = prf.evaluate(contexts)
    is_ours = is_account_channel(routes, record.account_share_q16)
    streams, routes, tokens = streams[is_ours], routes[is_ours], ids[width:][is_ours]
    is_first = first_occurrences(streams)
    values = pair_values(streams[is_first], tokens[is_first])
    segments = np.flatnonzero(is_ours)[is_first] // SEGMENT_UNITS
    return _Pairs(values, code_indices(routes[is_first]), segments, len(ids), len(contexts))


def _number_segments(parts: Sequence[_Pairs]) -> NDArray[np.int64]:
    """Return the segment of every pair, numbered through all replies."""
    counts = [part.n_contexts // SEGMENT_UNITS + 1 for part in parts]
    before = np.cumsum([0, *counts])
    return np.concatenate(
        [part.segments + int(base) for part, base in zip(parts, before, strict=False)]
    )


def _segment_sums(
    indices: NDArray[np.int64], scores: NDArray[np.int64], segments: NDArray[np.int64]
) -> SegmentSums:
    """Return the sums by segment; a code position belongs to one of those that have it.

    To which is fixed by an even choice, so that none gains by its place in the body.
    """
    owner = np.full(CODE_POSITIONS, -1)
    lots = mix64((indices << 32 | segments).astype(np.uint64))
    drawn = np.argsort(lots, kind="stable")
    owner[indices[drawn]] = segments[drawn]  # the last one stays
    is_own = owner[indices] == segments
    sums = np.bincount(indices[is_own], scores[is_own], CODE_POSITIONS).astype(np.int64)
    positions = np.flatnonzero(sums)
    positions = positions[np.argsort(owner[positions], kind="stable")]
    owners = owner[positions]
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    return SegmentSums(positions=positions, sums=sums[positions], starts=starts)
