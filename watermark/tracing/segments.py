"""Accounts held against a body segment by segment: where a body is of several accounts.

In a mixture an account's code is in its own segments only, and a sum over the whole body drowns
it in the others. Here every segment votes: with M_d the likelihood ratio of "this segment carries
the code" against fair coins,

    E = mean over (h, w) of prod_d ((1 - w) + w M_d),   M_d = prod_j exp(h e_j S_j) / cosh(h S_j)

over the positions j of segment d, w a share of segments and h a strength from a fixed grid.

Under the null (`tracing/accounts.py`) the e_j are independent fair signs given S, so exp(h e S)
has mean cosh(h S) and every factor of M_d mean 1. Each position is in one segment only, so the
M_d are independent, and each bracket, the product and the mean over the grid have mean 1: E is an
e-value, and P(E >= 1/p) <= p by Markov's inequality. Which segment has a position, and where
segments begin, follows from the text, never from an account's bits.

Source: Vovk and Wang, Ann. Stat. 49 (2021), e-values and their averages.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.tracing.codes import SCORES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from watermark.seeding import AccountCodes
    from watermark.tracing.codes import SegmentSums

_LARGEST: Final = float(SCORES[-1] + 1)
STRENGTHS: Final = (0.5 / _LARGEST, 1.0 / _LARGEST)  # h; the story model's best is 1.1 / 8
SHARES: Final = (0.3, 0.1, 0.03, 0.01)  # w


def segment_log_pvalues(codes: AccountCodes, segments: SegmentSums) -> NDArray[np.float64]:
    """Return -log E of every account, at most 0, shape (n,): a valid log p-value.

    Args:
        codes: The accounts' codes.
        segments: The body by segments, two or more.
    """
    weights = segments.sums.astype(np.float64)
    bits = codes.bits(segments.positions).T  # C order: positions, then accounts
    bounds = [*segments.starts.tolist(), len(weights)]
    sums = np.array(
        [
            weights[start:end].sum() - 2.0 * (weights[start:end] @ bits[start:end])
            for start, end in pairwise(bounds)
        ]
    )
    found: NDArray[np.float64] = -np.maximum(_log_e(sums, weights, segments.starts), 0.0)
    return found


def _log_e(
    sums: NDArray[np.float64], weights: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return log E by account, shape (n,).

    Args:
        sums: Sums of e_j S_j by segment and account, shape (s, n); of whole numbers, exact.
        weights: S_j, shape (m,).
        starts: Where segments begin, shape (s,).
    """
    parts = []
    for strength in STRENGTHS:
        norm = np.add.reduceat(_log_cosh(strength * weights), starts)
        ratio = strength * sums - norm[:, None]
        parts += [
            np.logaddexp(np.log1p(-share), np.log(share) + ratio).sum(axis=0) for share in SHARES
        ]
    return _log_mean_exp(parts)


def _log_mean_exp(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    stacked = np.stack(parts)
    return np.asarray(np.logaddexp.reduce(stacked, axis=0) - np.log(len(stacked)), np.float64)


def _log_cosh(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log cosh x, without overflow."""
    size = np.abs(x)
    found: NDArray[np.float64] = size + np.log1p(np.exp(-2.0 * size)) - np.log(2.0)
    return found
