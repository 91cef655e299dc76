"""A bet on exponential scores that loses nothing to their spread.

Under the null a score s is Exp(1) given everything before it, so that for every theta < 1

    (1 - theta) exp(theta s)

has mean 1: it is the likelihood ratio of Exp with mean 1 / (1 - theta) against Exp(1). Products of
such factors, theta fixed before each score is seen, are a non-negative martingale, and so are
their averages over several theta (Ville: P(sup E >= 1 / alpha) <= alpha).

Against a mean of 1 + e the best theta is e / (1 + e), and the logarithm grows by e - log(1 + e) a
score, whatever else the law of the scores is: the rate at which the tail of their sum falls. The
linear bet of `evalues`, which asks for no more than a mean of 1, pays for the spread: where 15% of
the scores carry all of an excess of .13, its median is 1.27 times the scores at which the tail of
the sum is 1e-6, that of this one 1.11 (`benchmarks/radioactivity/bets.py`).

Scores are discrete, at midpoints of 2^52 cells of u; the factor is convex in u, so that its mean is
below 1, never above.

Source: Wald 1945; Robbins, Ann. Math. Stat. 41 (1970), for mixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def tilted_log_growth(
    thetas: Sequence[float], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how much the logarithm of each bet grows with some scores, shape (k,).

    Args:
        thetas: Stakes, each in [0, 1), shape (k,).
        scores: In nats, >= 0, shape (n,).
        weights: Multiples of the stakes, in [0, 1], fixed before their scores, shape (n,).

    Raises:
        SchemeParameterError: A stake, a score or a weight is out of range.
    """
    stakes = np.asarray(thetas, np.float64)
    if not ((stakes >= 0) & (stakes < 1)).all():
        raise SchemeParameterError(f"stakes lie in [0, 1), found {tuple(thetas)}")
    if len(scores) and not (scores.min() >= 0 and weights.min() >= 0 and weights.max() <= 1):
        raise SchemeParameterError("scores are >= 0 and weights in 0..1; one is not")
    shares = np.multiply.outer(stakes, weights)
    growth: NDArray[np.float64] = np.log1p(-shares).sum(axis=1) + shares @ scores
    return growth
