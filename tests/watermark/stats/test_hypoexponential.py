"""The weighted sum of two Gammas: against partial fractions, simulation and special cases."""

from __future__ import annotations

import math
import time

import mpmath
import numpy as np
import pytest
from scipy import special

from watermark.errors import SchemeParameterError
from watermark.stats import gamma_log_sf, weighted_gammas_log_sf


def by_partial_fractions(t: float, n: int, w: float, v: float) -> float:
    """Return log P(w A + v B >= t) from the poles of its Laplace transform, in 200 digits."""
    with mpmath.workdps(200):
        rates = (1 / mpmath.mpf(w), 1 / mpmath.mpf(v))
        total = mpmath.mpf(0)
        for one, other in (rates, rates[::-1]):
            for m in range(n):
                gap = (other - one) ** (-n - m)
                pole = (-1) ** m * mpmath.binomial(n + m - 1, m) * gap * other**n * one**m
                total += pole * mpmath.gammainc(n - m, one * t, regularized=True)
        return float(mpmath.log(total))


@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("weights", [(0.9, 0.1), (0.1, 0.9), (0.7, 0.3), (0.51, 0.49)])
@pytest.mark.parametrize("excess", [0.4, 1.0, 1.7, 4.0])
def test_the_tail_is_that_of_partial_fractions(
    n: int, weights: tuple[float, float], excess: float
) -> None:
    t = excess * n
    expected = by_partial_fractions(t, n, *weights)
    assert weighted_gammas_log_sf(t, n, weights) == pytest.approx(expected, rel=1e-11, abs=1e-12)


def test_one_score_is_the_sum_of_two_exponentials() -> None:
    w, v, t = 0.9, 0.1, 30.0
    exact = math.log((w * math.exp(-t / w) - v * math.exp(-t / v)) / (w - v))
    assert weighted_gammas_log_sf(t, 1, (w, v)) == pytest.approx(exact, rel=1e-13)


def test_equal_and_missing_weights_are_gamma() -> None:
    assert weighted_gammas_log_sf(80.0, 50, (0.5, 0.5)) == gamma_log_sf(160.0, 100)
    assert weighted_gammas_log_sf(80.0, 50, (1.0, 0.0)) == gamma_log_sf(80.0, 50)
    near = weighted_gammas_log_sf(80.0, 50, (0.5 + 1e-9, 0.5 - 1e-9))
    assert near == pytest.approx(gamma_log_sf(160.0, 100), rel=1e-6)
    assert weighted_gammas_log_sf(0.0, 0, (0.9, 0.1)) == 0.0
    assert weighted_gammas_log_sf(0.0, 5, (0.9, 0.1)) == 0.0


def test_fitting_the_moments_is_not_exact() -> None:
    """Negative control: the law that vLLM's dual-key detector takes understates p at 1e-6."""
    n, (w, v) = 50, (0.9, 0.1)
    variance = w * w + v * v
    t = next(t for t in np.arange(50, 150, 0.1) if weighted_gammas_log_sf(t, n, (w, v)) < -13.8)
    fitted = math.log(special.gammaincc(n / variance, t / variance))
    assert weighted_gammas_log_sf(t, n, (w, v)) - fitted > math.log(1.25)


def test_p_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(0)
    n, trials = 40, 500
    sums = 0.9 * rng.standard_gamma(n, trials) + 0.1 * rng.standard_gamma(n, trials)
    p = np.exp([weighted_gammas_log_sf(t, n, (0.9, 0.1)) for t in sums])
    for alpha in (0.5, 0.1, 0.01):
        assert abs((p <= alpha).mean() - alpha) < 4 * math.sqrt(alpha * (1 - alpha) / trials)


def test_far_tails_and_long_texts_have_a_logarithm() -> None:
    far = weighted_gammas_log_sf(5000.0, 500, (0.9, 0.1))
    assert -6000 < far < -3000
    begin = time.perf_counter()
    long = weighted_gammas_log_sf(1.01e6, 1_000_000, (0.9, 0.1))
    assert time.perf_counter() - begin < 5
    z = 0.01e6 / math.sqrt(0.82e6)
    assert long == pytest.approx(float(special.log_ndtr(-z)), rel=0.02)


@pytest.mark.parametrize("weights", [(-0.1, 1.0), (0.0, 0.0), (math.inf, 1.0)])
def test_weights_out_of_range_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(SchemeParameterError):
        weighted_gammas_log_sf(1.0, 1, weights)
