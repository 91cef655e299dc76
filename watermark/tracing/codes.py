"""What a body of text says about every position of the accounts' codes.

Rule 1: of the positions with a context, the first of each context in a reply counts, and over
the body each (context, token) pair once. Rule 2: only positions of the account channel count.
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
SCORES: Final = np.arange(1 - (1 << _SCORE_BITS), 1 << _SCORE_BITS, 2)  # -7, -5 ... 7


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSums:
    """A body of text, summed over the code positions.

    Attributes:
        record: The key whose account channel was read.
        positions: Code positions with a sum that is not 0, ascending, shape (m,).
        sums: Their sums of scores, shape (m,); secret as scores are.
        n_tokens: Units in the body.
        n_scored: Pairs that count.
    """

    record: KeyRecord
    positions: NDArray[np.int64]
    sums: NDArray[np.int64]
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
    indices = np.concatenate([part.indices for part in parts])
    is_first = first_occurrences(values)
    values, indices = values[is_first], indices[is_first]
    scores = SCORES[(pair_levels(values) >> _SCORE_SHIFT).astype(np.int64)]
    sums = np.bincount(indices, weights=scores, minlength=CODE_POSITIONS).astype(np.int64)
    positions = np.flatnonzero(sums)
    return CodeSums(
        record=record,
        positions=positions,
        sums=sums[positions],
        n_tokens=n_tokens,
        n_scored=len(values),
    )


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The pairs of one reply that may count."""

    values: NDArray[np.uint64]
    indices: NDArray[np.uint16]
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
    return _Pairs(values, code_indices(routes[is_first]), len(ids), len(contexts))
