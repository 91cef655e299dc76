"""What does it cost an audit in tokens that a student's text was marked under r keys?

    python -m benchmarks.rotation_price [--quick]

A student has learned from text of r epochs in equal parts, and shows 1/r of the effect under each
key: with probability dose/r a scored token is the best of two under that key, else any. An
audit scores n tokens under every key. Pooled, the sum over all keys is held against Gamma(n r, 1);
alone, the best key is held against Gamma(n, 1) with Bonferroni over r. Printed: the tokens at
which half of the audits reach p < 1e-6, and the ratio to one key. The model behind
`watermark keys plan` says r, and at most r^2; negative control: without any dose, no audit rejects.
"""

from __future__ import annotations

import argparse
from datetime import timedelta

import numpy as np

from watermark.stats import gamma_log_sf, rotation_price, tokens_needed

LOG_ALPHA = -6.0 * np.log(10.0)
DOSE = 0.3


def log_pvalues(
    n_tokens: int, n_keys: int, dose: float, audits: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return log p of `audits` audits: pooled over the keys, and by the best key.

    Args:
        n_tokens: Tokens that are scored.
        n_keys: Keys.
        dose: Share of the tokens that carry a mark under one key alone.
        audits: How many.
        rng: Randomness.
    """
    marked = rng.binomial(n_tokens, dose / n_keys, size=(audits, n_keys))
    sums = rng.gamma(n_tokens - marked) if n_tokens else np.zeros((audits, n_keys))
    # The best of two has the score of the first plus an exponential of half the size.
    sums = sums + rng.gamma(np.maximum(marked, 1e-12)) + 0.5 * rng.gamma(np.maximum(marked, 1e-12))
    pooled = np.array([gamma_log_sf(float(x), n_tokens * n_keys) for x in sums.sum(axis=1)])
    best = np.array([gamma_log_sf(float(x), n_tokens) for x in sums.max(axis=1)])
    return pooled, np.minimum(best + np.log(n_keys), 0.0)


def tokens_to_reject(n_keys: int, *, pooled: bool, audits: int, rng: np.random.Generator) -> int:
    """Return the tokens at which half of the audits reject, by bisection."""
    low, high = 10, 10
    while not _rejects(high, n_keys, pooled=pooled, audits=audits, rng=rng):
        low, high = high, high * 2
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        if _rejects(middle, n_keys, pooled=pooled, audits=audits, rng=rng):
            high = middle
        else:
            low = middle
    return high


def _rejects(
    n_tokens: int, n_keys: int, *, pooled: bool, audits: int, rng: np.random.Generator
) -> bool:
    both = log_pvalues(n_tokens, n_keys, DOSE, audits, rng)
    return bool(np.median(both[0 if pooled else 1]) < LOG_ALPHA)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="Fewer audits and keys.")
    arguments = parser.parse_args()
    audits = 100 if arguments.quick else 400
    rng = np.random.default_rng(0)
    one = {kind: tokens_to_reject(1, pooled=kind, audits=audits, rng=rng) for kind in (True, False)}
    print(f"{'keys':>5} {'pooled':>9} {'factor':>7} {'alone':>9} {'factor':>8}  normal law")
    for n_keys in (1, 2, 4, 12) if arguments.quick else (1, 2, 4, 12, 26, 52):
        together = tokens_to_reject(n_keys, pooled=True, audits=audits, rng=rng)
        alone = tokens_to_reject(n_keys, pooled=False, audits=audits, rng=rng)
        law = tokens_needed(DOSE / 2, n_keys, log10_p=-6.0)
        print(
            f"{n_keys:5d} {together:9d} {together / one[True]:7.1f} {alone:9d} "
            f"{alone / one[False]:8.1f}  {law:9.0f}"
        )
    price = rotation_price(timedelta(days=30), timedelta(days=365))
    print(f"keys plan, 30 days in 365: {price.n_keys:.1f} keys, factor {price.pooled_factor:.1f}")
    null = log_pvalues(1000, 4, 0.0, 1000, rng)
    rejected = [int((values < LOG_ALPHA).sum()) for values in null]
    print(f"without a dose, of 1000 audits: {rejected[0]} pooled and {rejected[1]} alone reject")


if __name__ == "__main__":
    main()
