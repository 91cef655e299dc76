"""What looking at any time costs, and what the statistic gains: scores to 1e-6.

Of all scores a share is larger in the mean, so that all have some excess; the audit guesses the
share. Its statistic at a fixed number of scores, the plain sum of the scores, its bet, and a bet
that is linear in the scores are held against the same scores; the median over runs is printed.

    python -m benchmarks.radioactivity.bets
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

import numpy as np

from watermark.radioactivity import Design
from watermark.stats import diluted_log_growth, gamma_log_sf, share_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ALPHA = 1e-6
LOG_ALPHA = math.log(ALPHA)
STEP = 8


def first(growths: NDArray[np.float64]) -> int:
    """Return after how many scores a mixture of bets has reached 1 / alpha; growths (k, steps)."""
    capitals = growths.cumsum(axis=1)
    log_evalues = np.logaddexp.reduce(capitals, axis=0) - math.log(len(capitals))
    reached = log_evalues >= -LOG_ALPHA
    return STEP * (int(reached.argmax()) + 1 if reached.any() else len(reached))


def at_once(terms: NDArray[np.float64], log_sf: Callable[[float, int], float]) -> int:
    """Return the scores that a test at one fixed number takes, at the mean that was seen."""
    mean = float(terms.mean())
    low, high = 1, len(terms)
    while low < high:
        n = (low + high) // 2
        low, high = (low, n) if log_sf(n * mean, n) <= LOG_ALPHA else (n + 1, high)
    return low


def measure(scores: NDArray[np.float64], design: Design) -> tuple[int, int, int, int]:
    """Return the scores to 1e-6: statistic, plain sum, bet, linear bet."""
    statistic, ones = design.statistic, np.ones(len(scores))
    fixed = at_once(
        statistic.terms(scores, ones), lambda total, n: statistic.log_sf(total, ones[:n])
    )
    plain = at_once(scores, gamma_log_sf)
    steps = scores.reshape(-1, STEP)
    grown = [diluted_log_growth(design.shares, one, ones[:STEP]) for one in steps]
    stakes = np.array(design.shares) / 2  # of the order of the excess that the shares stand for
    linear = np.log1p(np.multiply.outer(stakes, steps - 1.0)).sum(axis=2)
    return fixed, plain, first(np.array(grown).T), first(linear)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=16)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    head = ("excess", "share", "guess", "fixed n", "plain sum", "bet", "linear bet", "bet/fixed n")
    print(" ".join(f"{one:>11}" for one in head))
    for excess, share in ((0.2, 0.4), (0.1, 0.15), (0.05, 0.05), (0.1, 1.0)):
        n = round(6 * (5.0 / excess) ** 2) // STEP * STEP
        for guess in (0.5, 1.0, 2.0):
            design = Design(alpha=ALPHA, share=share_of(guess * excess))
            found = []
            for _ in range(options.runs):
                scores = rng.exponential(1.0, n)
                scores[rng.random(n) < share] *= 1.0 + excess / share
                found.append(measure(scores, design))
            medians = np.median(np.array(found), axis=0)
            shown = [excess, share, guess, *medians.astype(int), round(medians[2] / medians[0], 2)]
            print(" ".join(f"{one:>11}" for one in shown), flush=True)


if __name__ == "__main__":
    main()
