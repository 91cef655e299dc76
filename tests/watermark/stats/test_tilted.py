"""The tilted bet is fair, crosses in at most alpha, and grows as the tail of the sum falls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from watermark.errors import SchemeParameterError
from watermark.stats import gamma_log_sf, tilted_log_growth


@pytest.mark.parametrize("theta", [0.01, 0.3, 0.8])
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_a_factor_has_mean_one(theta: float, weight: float) -> None:
    def factor(s: float) -> float:
        return math.exp(float(tilted_log_growth([theta], np.array([s]), np.array([weight]))[0]) - s)

    assert integrate.quad(factor, 0, np.inf)[0] == pytest.approx(1.0, abs=1e-6)


def test_it_crosses_in_at_most_alpha() -> None:
    rng = np.random.default_rng(0)
    crossed = 0
    for _ in range(2000):
        s = rng.exponential(1.0, 400)
        stakes = np.array([0.05, 0.2])[:, None]
        logs = np.logaddexp.reduce((np.log1p(-stakes) + stakes * s).cumsum(axis=1)) - math.log(2)
        crossed += bool((logs >= math.log(20)).any())
    assert crossed <= 0.05 * 2000 + 3 * math.sqrt(2000 * 0.05)


def test_it_grows_as_the_tail_of_the_sum_falls() -> None:
    n, effect = 4000, 0.2
    scores = np.full(n, 1.0 + effect)
    growth = float(tilted_log_growth([effect / (1 + effect)], scores, np.ones(n))[0])
    assert growth == pytest.approx(n * (effect - math.log1p(effect)))
    assert 0 < -gamma_log_sf(float(scores.sum()), n) - growth < math.log(n)  # but for a root of n


def test_what_is_out_of_range_is_refused() -> None:
    one = np.ones(1)
    for stakes, scores, weights in (
        ((1.0,), one, one),
        ((0.1,), -one, one),
        ((0.1,), one, 2 * one),
    ):
        with pytest.raises(SchemeParameterError):
            tilted_log_growth(stakes, scores, weights)
    assert tilted_log_growth((0.1,), np.zeros(0), np.zeros(0)).tolist() == [0.0]
