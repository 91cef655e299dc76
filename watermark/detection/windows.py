"""Windows over a document's scores, and the law of the best one when there is no mark.

Windows are runs of 16, 32, 64, ... consecutive scores, each starting half a length after the last,
and the whole document. The statistic of a window is -log p of its sum (Gamma upper tail), so that
long and short windows compare; the statistic of the document is the largest.

Why the family-wise error is exact, whatever the text: under the null a random key gives the m
distinct pairs of a document independent Exp(1) scores, so the largest window statistic is one
function of m independent draws. Decoy keys sample its law with the document at hand; drawing the
scores themselves samples the same law, because nothing of the text but m is left in it, so one
such sample serves every document of m pairs. Either way the own maximum and B samples are
exchangeable, and (1 + #{T_b >= T}) / (B + 1) <= alpha has chance at most alpha. The windows that
lie outside every mark are a subset with the law they have under the null, and their maximum is at
most the maximum over all: a window beyond the threshold that touches no mark has chance at most
alpha too, also where the document is marked elsewhere.

Source: Westfall and Young 1993 (single-step maxT); Phipson and Smyth 2010 (the plus one).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from watermark.detection.key_scores import decoy_context_keys, key_score_blocks
from watermark.detection.result import FEWEST_SHOWN
from watermark.errors import SchemeParameterError
from watermark.stats import gamma_log_sf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from watermark.schemes import Positions

SHORTEST: Final = FEWEST_SHOWN
HALF: Final = SHORTEST // 2
SAMPLES_PER_LEVEL: Final = 3  # samples of the null for each 1/alpha
_CHUNK: Final = 1 << 21  # scores drawn at a time
_DIRECT: Final = 1e-280
_NULLS: Final = 8  # forms, units and context widths of a document; megabytes each for many keys


@dataclass(frozen=True, slots=True)
class WindowSums:
    """All windows of one length.

    Attributes:
        length: Scores in a window.
        step: Scores from one start to the next.
        sums: Their sums, shape (..., n_windows).
    """

    length: int
    step: int
    sums: NDArray[np.float64]

    def log_pvalues(self) -> NDArray[np.float64]:
        """Return the natural log of each window's p-value, shape of the sums."""
        tails = np.asarray(special.gammaincc(self.length, self.sums), np.float64)
        far = tails < _DIRECT
        logs: NDArray[np.float64] = np.log(np.where(far, 1.0, tails))
        if far.any():
            logs[far] = [gamma_log_sf(float(one), self.length) for one in self.sums[far]]
        return logs


@dataclass(frozen=True, slots=True)
class MaximumNull:
    """A sample of the largest window statistic under the null.

    Attributes:
        n_scored: Scores in the document.
        maxima: The samples, descending, shape (n_samples,); each >= 0.
        source: `decoy keys` or `simulated scores`: the same law.
    """

    n_scored: int
    maxima: NDArray[np.float64]
    source: str

    def pvalue(self, statistic: float) -> float:
        """Return the family-wise p-value of a window statistic, at least 1 / (samples + 1)."""
        ascending = self.maxima[::-1]
        reached = len(ascending) - int(np.searchsorted(ascending, statistic, side="left"))
        return (1 + reached) / (len(ascending) + 1)

    def threshold(self, alpha: float) -> float:
        """Return what a window statistic must exceed for a family-wise p-value of alpha.

        Raises:
            SchemeParameterError: The sample is too small for this level.
        """
        rank = math.floor(alpha * (len(self.maxima) + 1) * (1 + 1e-12))
        if rank < 1:
            raise SchemeParameterError(
                f"{len(self.maxima)} samples of the null support no level below "
                f"{1 / (len(self.maxima) + 1):.2g}; take at least {samples_for(alpha)}"
            )
        return float(self.maxima[rank - 1])


def samples_for(alpha: float) -> int:
    """Return how many samples of the null a level asks for.

    Raises:
        SchemeParameterError: alpha is not in (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise SchemeParameterError(f"alpha must lie in (0, 1), found {alpha}")
    return math.ceil(SAMPLES_PER_LEVEL / alpha)


def window_sums(scores: NDArray[np.float64]) -> Iterator[WindowSums]:
    """Yield the windows of every length, the shortest first.

    Up to 7 scores at the end stand in no window of 16; the whole document holds them.

    Args:
        scores: Shape (..., m), m >= 1.
    """
    m = scores.shape[-1]
    n_blocks = m // HALF
    shape = (*scores.shape[:-1], n_blocks, HALF)
    blocks = scores[..., : n_blocks * HALF].reshape(shape).sum(axis=-1)
    step = HALF
    while 2 * step < m and blocks.shape[-1] > 1:
        yield WindowSums(2 * step, step, blocks[..., :-1] + blocks[..., 1:])
        even = blocks.shape[-1] // 2 * 2
        blocks = blocks[..., 0:even:2] + blocks[..., 1:even:2]
        step *= 2
    yield WindowSums(m, m, scores.sum(axis=-1, keepdims=True))


def maximum(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest window statistic, shape (...) for scores of shape (..., m)."""
    best = [
        # Of one length the largest sum has the smallest p: one tail a length.
        WindowSums(level.length, level.step, level.sums.max(axis=-1)).log_pvalues()
        for level in window_sums(scores)
    ]
    largest: NDArray[np.float64] = -np.min(best, axis=0)
    return largest


def simulated_null(n_scored: int, count: int, rng: np.random.Generator) -> MaximumNull:
    """Return the null of a document of n_scored pairs by drawing scores.

    Args:
        n_scored: Distinct pairs in the document, at least 1.
        count: Samples, as `samples_for` says.
        rng: Independent of the key.
    """
    rows = max(1, _CHUNK // n_scored)
    parts = [
        maximum(rng.standard_exponential((min(rows, count - start), n_scored)))
        for start in range(0, count, rows)
    ]
    return _null(n_scored, np.concatenate(parts), "simulated scores")


def decoy_null(
    positions: Positions, count: int, rng: np.random.Generator, *, account_share_q16: int = 0
) -> MaximumNull:
    """Return the null of a document by holding random keys against it.

    Args:
        positions: The distinct pairs of the document.
        count: Decoy keys.
        rng: Draws them.
        account_share_q16: The own key's account share: every key leaves out its own positions.
    """
    blocks = key_score_blocks(
        decoy_context_keys(count, rng),
        positions.contexts,
        positions.tokens,
        account_share_q16=account_share_q16,
    )
    maxima = np.empty(count)
    for rows, scores in blocks:
        maxima[rows] = _kept_maxima(scores) if account_share_q16 else maximum(scores)
    return _null(len(positions), maxima, "decoy keys")


class Nulls:
    """The nulls that were drawn last, for whatever keys of one call ask for the same.

    A null is drawn without any key that is tested: of a document's distinct pairs and the account
    share by decoys, of a number of pairs by simulation. So it is independent of every one of these
    keys under its null, and one serves them all; each p is valid by itself, which is all that a
    correction over tests needs.
    """

    __slots__ = ("_drawn",)

    def __init__(self) -> None:
        """Begin with none."""
        self._drawn: dict[tuple[object, ...], MaximumNull] = {}

    def simulated(self, n_scored: int, count: int, rng: np.random.Generator) -> MaximumNull:
        """Return what `simulated_null` draws."""
        return self._kept((n_scored, count), partial(simulated_null, n_scored, count, rng))

    def by_decoys(
        self, positions: Positions, count: int, rng: np.random.Generator, *, account_share_q16: int
    ) -> MaximumNull:
        """Return what `decoy_null` draws."""
        pairs = hashlib.sha256(np.ascontiguousarray(positions.contexts).tobytes())
        pairs.update(np.ascontiguousarray(positions.tokens).tobytes())
        draw = partial(decoy_null, positions, count, rng, account_share_q16=account_share_q16)
        return self._kept((pairs.digest(), count, account_share_q16), draw)

    def _kept(self, of: tuple[object, ...], draw: Callable[[], MaximumNull]) -> MaximumNull:
        if of not in self._drawn:
            if len(self._drawn) >= _NULLS:
                self._drawn.pop(next(iter(self._drawn)))
            self._drawn[of] = draw()
        return self._drawn[of]


def _kept_maxima(scores: NDArray[np.float64]) -> list[float]:
    """Return the largest statistic of each row, without the positions that score 0."""
    kept = (row[row > 0.0] for row in scores)
    return [float(maximum(row)) if len(row) else 0.0 for row in kept]


def _null(n_scored: int, maxima: NDArray[np.float64], source: str) -> MaximumNull:
    maxima = np.sort(maxima)[::-1].copy()
    maxima.flags.writeable = False
    return MaximumNull(n_scored, maxima, source)
