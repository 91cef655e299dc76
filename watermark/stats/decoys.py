"""P-values from decoy keys: the same statistic under keys that nobody used.

Why they are valid: under the null the key is independent of the text, so the statistic under it
and under B independent keys of the same law are exchangeable given the text. The rank of the true
one among all B + 1 is then uniform but for ties, and counting ties against the null keeps
P(p <= alpha) <= alpha at every alpha, whatever the statistic is and however much of it was
computed from the text. It must not be computed from the key.

One set of decoys may serve many keys that are held against the same pairs: each key's p-value is
valid by itself, and Holm's correction asks for nothing more.

Source: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010), for the added ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_DECOY_WORK: Final = 10**11
"""Pairs times decoys that are worth their time: some twenty minutes of one core."""
KEY_PAIRS: Final = 600
"""Pairs that setting up a key is worth."""
_PER_ALPHA: Final = 3.0  # with 3 / alpha decoys, two may reach the statistic at a p of alpha


def decoys_reached(
    statistics: NDArray[np.float64], decoys: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return #{T_b >= T} for every T, shape (k,).

    Args:
        statistics: T under the keys that are tested, shape (k,); larger speaks against the null.
        decoys: T_b, the same statistic under B decoy keys, shape (B,).

    Raises:
        SchemeParameterError: A statistic is not a number.
    """
    if np.isnan(statistics).any() or np.isnan(decoys).any():
        raise SchemeParameterError("a statistic is not a number; decoys cannot rank it")
    below = np.searchsorted(np.sort(decoys), statistics, side="left")
    return (len(decoys) - below).astype(np.int64)


def decoy_log_pvalue(n_reached: int, n_decoys: int) -> float:
    """Return log (1 + #{T_b >= T}) / (B + 1), in nats: a number in [-log(B + 1), 0].

    Args:
        n_reached: Decoys whose statistic is at least the tested one.
        n_decoys: B.
    """
    return math.log((1 + n_reached) / (n_decoys + 1))


def smallest_log_pvalue(n_decoys: int) -> float:
    """Return the natural log of the smallest p that so many decoys support."""
    return -math.log(n_decoys + 1)


def decoys_for(alpha: float) -> int:
    """Return how many decoys a level asks for: 3 / alpha, rounded up.

    Args:
        alpha: The level, in (0, 1).

    Raises:
        SchemeParameterError: alpha is not in (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise SchemeParameterError(f"alpha must lie in (0, 1), found {alpha}")
    return math.ceil(_PER_ALPHA / alpha)


def affordable_decoys(n_decoys: int, n_pairs: int) -> int:
    """Return how many of the decoys asked for are worth their time.

    Args:
        n_decoys: Decoys asked for, >= 0.
        n_pairs: Pairs that each is held against.

    Returns:
        The fewer with which the work stays at `MAX_DECOY_WORK`; one at least, if any was asked
        for.
    """
    return min(n_decoys, max(1, MAX_DECOY_WORK // (n_pairs + KEY_PAIRS)))
