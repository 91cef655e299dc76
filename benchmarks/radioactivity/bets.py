"""What looking at any time costs: scores to 1e-6, by the bets and by the sum at a fixed number.

Scores of a diluted mark: a share of them has a larger mean, so that all have the planned excess.

    python -m benchmarks.radioactivity.bets
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from watermark.radioactivity import stakes_for
from watermark.stats import gamma_log_sf, tilted_log_growth

ALPHA = 1e-6
STEP = 8


def first(growths: np.ndarray) -> int:
    """Return after how many scores a mixture of bets has reached 1 / alpha; growths (k, steps)."""
    capitals = growths.cumsum(axis=1)
    log_evalues = np.logaddexp.reduce(capitals, axis=0) - math.log(len(capitals))
    reached = log_evalues >= -math.log(ALPHA)
    return STEP * (int(reached.argmax()) + 1 if reached.any() else len(reached))


def fixed_n(effect: float) -> int:
    """Return the number of scores at which a sum of the expected size has p = alpha, exactly."""
    low, high = 1, 1 << 20
    while low < high:
        n = (low + high) // 2
        is_enough = gamma_log_sf(n * (1.0 + effect), n) <= math.log(ALPHA)
        low, high = (low, n) if is_enough else (n + 1, high)
    return low


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{'effect':>7} {'share':>6} {'guess':>6} {'fixed n':>8} {'tilted':>7} {'linear':>7}")
    for effect, share in ((0.13, 0.15), (0.13, 1.0), (0.05, 0.1)):
        fixed = fixed_n(effect)
        n = 4 * fixed // STEP * STEP
        for guess in (0.5, 1.0, 2.0):
            stakes = stakes_for(guess * effect)
            found = []
            for _ in range(options.runs):
                scores = rng.exponential(1.0, n)
                is_marked = rng.random(n) < share
                scores[is_marked] *= 1.0 + effect / share
                steps = scores.reshape(-1, STEP)
                ones = np.ones(STEP)
                tilted = np.array([tilted_log_growth(stakes, one, ones) for one in steps]).T
                linear = np.log1p(np.multiply.outer(stakes, steps - 1.0)).sum(axis=2)
                found.append((first(tilted), first(linear)))
            medians = np.median(np.array(found), axis=0) / fixed
            print(
                f"{effect:7} {share:6} {guess:6} {fixed:8} {medians[0]:7.2f} {medians[1]:7.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
