"""The Gamma tail against arbitrary precision, over all sizes and deep into the tail."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.errors import SchemeParameterError
from watermark.stats import gamma_log_sf, gamma_log_sfs

SHAPES = (1, 2, 3, 7, 31, 32, 33, 100, 999, 10_000, 123_456, 1_000_000, 10_000_000)


def exact(statistic: float, shape: int) -> float:
    """Return the log tail by arbitrary precision: series below, continued fraction above."""
    with mpmath.workdps(40):
        x, a = mpmath.mpf(statistic), mpmath.mpf(shape)
        front = a * mpmath.log(x) - x - mpmath.loggamma(a)
        if x < a + 8 * mpmath.sqrt(a) + 8:
            term = total = 1 / a
            place = a
            while term > total * mpmath.mpf(10) ** -35:
                place += 1
                term *= x / place
                total += term
            below = mpmath.exp(front) * total
            if below < 1 - mpmath.mpf(10) ** -18:
                return float(mpmath.log1p(-below))
        return float(front + mpmath.log(fraction(x, a)))


def fraction(x: mpmath.mpf, a: mpmath.mpf) -> mpmath.mpf:
    """Return Gamma(a, x) / (x^a e^-x), by Lentz's method at the caller's precision."""
    b = x + 1 - a
    c, d = mpmath.mpf(10) ** 60, 1 / b
    found = d
    for i in range(1, 200_000):
        step = -i * (i - a)
        b += 2
        d = 1 / (step * d + b)
        c = b + step / c
        found *= c * d
        if abs(c * d - 1) < mpmath.mpf(10) ** -35:
            return found
    raise AssertionError


def statistics(shape: int) -> list[float]:
    """Return sums from far below the mean to a log tail of about -10^5."""
    spread = math.sqrt(shape)
    near = [shape + z * spread for z in (-6, -3, -1, -0.1, 0, 0.1, 1, 3, 6, 10, 20, 36, 40)]
    below = [shape * share for share in (1e-3, 0.1, 0.5, 0.9)]
    # log tail is about -shape (t - log(1 + t)) at shape (1 + t)
    far = []
    for log_tail in (300, 640, 650, 1e3, 1e4, 1e5):
        low, high = 0.0, 1e6
        for _ in range(200):
            t = (low + high) / 2
            low, high = (t, high) if shape * (t - math.log1p(t)) < log_tail else (low, t)
        far.append(shape * (1 + low))
    return [value for value in (*below, *near, *far) if value > 0]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape <= 10_000])
def test_the_log_tail_is_right_to_nine_digits(shape: int) -> None:
    for statistic in statistics(shape):
        found, expected = gamma_log_sf(statistic, shape), exact(statistic, shape)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-300), statistic


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape > 10_000])
def test_the_log_tail_of_many_scores_is_right_to_nine_digits(shape: int) -> None:
    # The oracle's terms grow with the root of the shape; a few sums of each kind.
    spread = math.sqrt(shape)
    near = [shape + z * spread for z in (-4, 0, 5, 30)]
    for statistic in (*near, *statistics(shape)[-6:]):
        found, expected = gamma_log_sf(statistic, shape), exact(statistic, shape)
        assert found == pytest.approx(expected, rel=1e-9), statistic


@given(st.integers(1, 200), st.floats(0, 500))
def test_small_shapes_are_a_poisson_sum(shape: int, statistic: float) -> None:
    """P(Gamma(n, 1) >= x) = P(Poisson(x) < n): another road to the same number."""
    if statistic < 1e-3:
        return
    terms = [k * math.log(statistic) - math.lgamma(k + 1) for k in range(shape)]
    expected = -statistic + float(np.logaddexp.reduce(terms))
    assert gamma_log_sf(statistic, shape) == pytest.approx(expected, rel=1e-9, abs=1e-11)


@settings(max_examples=300)
@given(st.integers(1, 10**7), st.floats(0, 4), st.floats(0, 1e-2))
def test_a_larger_sum_never_has_a_larger_tail(shape: int, share: float, step: float) -> None:
    low = gamma_log_sf(shape * share, shape)
    high = gamma_log_sf(shape * share * (1 + step), shape)
    assert high <= low + 1e-9 * abs(low)
    assert high <= 0
    assert math.isfinite(high)


@pytest.mark.parametrize("shape", [1, 20, 32, 500, 10_000])
def test_the_two_ways_meet(shape: int) -> None:
    """Around the change to the continued fraction the tail falls smoothly."""
    low, high = float(shape), 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if gamma_log_sf(middle, shape) > -644.7 else (low, middle)
    steps = np.diff([gamma_log_sf(low * (1 + k * 1e-7), shape) for k in range(-20, 21)])
    assert (steps < 0).all()
    assert steps.max() / steps.min() == pytest.approx(1, abs=1e-3)


def test_one_score_is_exponential() -> None:
    for statistic in (1e-12, 0.5, 36.7, 700.0, 1e5):
        assert gamma_log_sf(statistic, 1) == pytest.approx(-statistic, rel=1e-12)


@pytest.mark.parametrize("shape", [1, 2, 5, 40, 1000])
def test_p_is_super_uniform_on_its_own_quantiles(shape: int) -> None:
    """P(p <= alpha) <= alpha: draws of the sum, by simulation, at several alphas."""
    sums = np.random.default_rng(shape).standard_gamma(shape, 20_000)
    logs = np.array([gamma_log_sf(value, shape) for value in sums.tolist()])
    for alpha in (0.5, 0.1, 0.01, 0.001):
        rate = (logs <= math.log(alpha)).mean()
        assert rate <= alpha + 4.5 * math.sqrt(alpha / 20_000)


def test_nothing_scored_is_no_evidence() -> None:
    assert gamma_log_sf(0.0, 0) == 0.0
    assert gamma_log_sf(0.0, 5) == 0.0
    assert gamma_log_sf(5e-324, 5) == 0.0


@pytest.mark.parametrize(
    ("statistic", "shape"),
    [(-1.0, 3), (math.nan, 3), (1.0, -1), (math.nan, 0), (math.inf, 3), (math.inf, 0)],
)
def test_what_no_sum_can_be_is_refused(statistic: float, shape: int) -> None:
    with pytest.raises(SchemeParameterError):
        gamma_log_sf(statistic, shape)


def test_many_tails_at_once_are_those_of_one_at_a_time() -> None:
    statistics = np.array([0.0, 0.0, 1e-3, 5.0, 9.5, 10.0, 30.0, 1e4, 2.0])
    shapes = np.array([0, 10, 10, 10, 10, 10, 10, 10, 0])
    expected = [
        gamma_log_sf(t, n) for t, n in zip(statistics.tolist(), shapes.tolist(), strict=True)
    ]
    assert gamma_log_sfs(statistics, shapes).tolist() == pytest.approx(expected, rel=1e-14)
    with pytest.raises(SchemeParameterError):
        gamma_log_sfs(np.array([-1.0]), np.array([3]))
