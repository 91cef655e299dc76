"""Tails of weighted sums against exact arithmetic, the Gamma law and simulation."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from watermark.errors import SchemeParameterError
from watermark.stats import gamma_log_sf, weighted_exponentials_log_sf, weighted_gammas_log_sf


def exact(t: float, weights: list[float]) -> float:
    """The alternating sum over distinct weights, in enough digits that nothing is lost."""
    with mpmath.workdps(400):
        w = [mpmath.mpf(x) for x in weights]
        total = mpmath.mpf(0)
        for i, wi in enumerate(w):
            factor = mpmath.mpf(1)
            for j, wj in enumerate(w):
                if i != j:
                    factor *= wi / (wi - wj)
            total += factor * mpmath.exp(-mpmath.mpf(t) / wi)
        return float(mpmath.log(total))


@pytest.mark.parametrize("n", [2, 5, 24, 25, 60, 150])
@pytest.mark.parametrize("spread", [0.5, 50.0])
@pytest.mark.parametrize("times", [0.3, 0.9, 1.0, 1.3, 2.0, 6.0, 40.0])
def test_exact_arithmetic_agrees(n: int, spread: float, times: float) -> None:
    weights = np.geomspace(1.0, 1.0 + spread, n)
    t = times * float(weights.sum())
    expected = exact(t, weights.tolist())
    assert weighted_exponentials_log_sf(t, weights) == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_equal_weights_are_a_gamma_and_two_are_the_other_form() -> None:
    assert weighted_exponentials_log_sf(50.0, np.full(20, 0.5)) == gamma_log_sf(100.0, 20)
    for n, t in ((40, 90.0), (300, 700.0), (300, 460.0)):
        weights = np.repeat([1.0, 0.3], n)
        assert weighted_exponentials_log_sf(t, weights) == pytest.approx(
            weighted_gammas_log_sf(t, n, (1.0, 0.3)), rel=1e-9
        )


def test_simulated_sums_have_uniform_p_values_and_moment_matching_fails() -> None:
    """The negative control: a Gamma with the same two moments is not the law."""
    rng = np.random.default_rng(0)
    weights = np.concatenate([[4.0, 2.0], np.full(30, 0.05)])
    sums = rng.standard_exponential((20_000, len(weights))) @ weights
    probe = sums[:500]
    p = np.exp([weighted_exponentials_log_sf(float(t), weights) for t in probe])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    mean, variance = weights.sum(), (weights**2).sum()
    wrong = stats.gamma.sf(sums, mean**2 / variance, scale=variance / mean)
    assert stats.kstest(wrong, "uniform").pvalue < 1e-6


def test_many_scores_keep_their_digits_far_out() -> None:
    levels = np.arange(1, 17) / 16
    weights = np.repeat(levels, 2000)
    mean, sd = weights.sum(), math.sqrt((weights**2).sum())
    logs = [weighted_exponentials_log_sf(float(mean + k * sd), weights) for k in (-3, 0, 3, 9, 60)]
    assert logs == sorted(logs, reverse=True)
    assert math.exp(logs[1]) == pytest.approx(0.5, abs=0.01)
    assert -1700 < logs[-1] < -1000


def test_what_has_no_tail_is_refused_or_stated() -> None:
    assert weighted_exponentials_log_sf(0.0, np.array([1.0])) == 0.0
    assert weighted_exponentials_log_sf(1.0, np.zeros(3)) == -math.inf
    assert weighted_exponentials_log_sf(2.0, np.array([0.0, 1.0])) == gamma_log_sf(2.0, 1)
    for t, weights in ((-1.0, [1.0]), (math.nan, [1.0]), (1.0, [-1.0]), (1.0, [math.inf])):
        with pytest.raises(SchemeParameterError):
            weighted_exponentials_log_sf(t, np.array(weights))
