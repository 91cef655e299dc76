"""The diluted bet is fair and crosses in at most alpha; its logarithm has the law that is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as laws

from watermark.errors import SchemeParameterError
from watermark.stats import DilutedSum, diluted_log_growth, gamma_log_sf, share_of
from watermark.stats.diluted import SMALLEST_SHARE, TILT

CELLS = 2**52


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_a_factor_has_mean_one(share: float, weight: float) -> None:
    def factor(s: float) -> float:
        return math.exp(
            float(diluted_log_growth([share], np.array([s]), np.array([weight]))[0]) - s
        )

    assert integrate.quad(factor, 0, 200)[0] == pytest.approx(1.0, abs=1e-6)


def test_on_a_grid_of_scores_its_mean_is_below_one() -> None:
    """Enumerated with few cells: midpoints of a convex function."""
    for cells in (4, 64, 4096):
        scores = -np.log1p(-(np.arange(cells) + 0.5) / cells)
        ones = np.ones(1)
        factors = [math.exp(diluted_log_growth([0.7], np.array([s]), ones)[0]) for s in scores]
        assert 0.9 < np.mean(factors) < 1.0


def test_it_crosses_in_at_most_alpha() -> None:
    rng = np.random.default_rng(0)
    crossed, shares = 0, np.array([0.1, 0.4])[:, None]
    for _ in range(2000):
        gains = shares * ((1 - TILT) * np.exp(TILT * rng.exponential(1.0, 400)) - 1)
        logs = np.logaddexp.reduce(np.log1p(gains).cumsum(axis=1)) - math.log(2)
        crossed += bool((logs >= math.log(20)).any())
    assert crossed <= 0.05 * 2000 + 3 * math.sqrt(2000 * 0.05)


def test_it_is_what_it_is_called() -> None:
    s, one = np.array([2.0]), np.ones(1)
    ratio = 0.7 + 0.3 * laws.expon.pdf(2.0, scale=1 / (1 - TILT)) / laws.expon.pdf(2.0)
    assert math.exp(diluted_log_growth([0.3], s, one)[0]) == pytest.approx(ratio)
    term = DilutedSum(0.3).terms(s, one)[0] - DilutedSum(0.3).terms(np.array([1e-9]), one)[0]
    least = math.log1p(-0.3 * TILT)
    assert term == pytest.approx(math.log(ratio) - least, abs=2 * DilutedSum(0.3).step)
    assert share_of(0.1) == pytest.approx(0.15)
    assert share_of(9.0) == 1.0


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_the_law_of_one_term_is_that_of_its_score(share: float) -> None:
    """P of a single score's term is e^-s at the smallest score that gives the same term."""
    statistic, one = DilutedSum(share), np.ones(1)

    def term(s: float) -> float:
        return float(statistic.terms(np.array([s]), one)[0])

    for s in (0.3, 1.0, 3.0, 9.0, 20.0, 28.0):
        low, high = 0.0, s
        while high - low > 1e-13 * s:
            middle = (low + high) / 2
            low, high = (low, middle) if term(middle) >= term(s) else (middle, high)
        assert statistic.log_sf(term(s), one) == pytest.approx(-high, rel=1e-3, abs=1e-9)
        assert high == pytest.approx(s, rel=0.02, abs=0.1)  # what rounding costs


def test_the_last_cells_are_counted() -> None:
    """Where a few of the 2^52 scores are left, their number is exact."""
    statistic, one = DilutedSum(0.5), np.ones(1)
    for k in (0, 1, 7):  # the cell k from the end, and those beyond
        s = -math.log((k + 0.5) / CELLS)
        value = float(statistic.terms(np.array([s]), one)[0])
        p = math.exp(statistic.log_sf(value, one))
        assert (k + 1) / CELLS * (1 - 1e-12) <= p <= (1.1 * k + 2) / CELLS


@pytest.mark.parametrize(
    "weights", [np.ones(12), np.repeat([1 / 32, 0.5, 1.0], [9, 7, 4])], ids=["alike", "mixed"]
)
def test_p_is_uniform_under_the_null(weights: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    statistic = DilutedSum(0.2)
    sums = statistic.terms(rng.exponential(1.0, (100_000, len(weights))), weights).sum(axis=1)
    assert abs(sums.mean()) < 5 * sums.std() / math.sqrt(len(sums))
    assert sums.std() == pytest.approx(statistic.spread(weights), rel=0.02)
    for level in (0.5, 0.1, 0.01, 1e-3):
        at = float(np.quantile(sums, 1 - level))
        share = float((sums >= at).mean())
        p = math.exp(statistic.log_sf(at, weights))
        assert abs(p - share) < 5 * math.sqrt(share / len(sums))


def test_a_wrong_share_is_seen_in_the_law() -> None:
    """Negative control: the sum of one statistic has not the law of another."""
    rng = np.random.default_rng(4)
    weights = np.ones(12)
    sums = DilutedSum(0.4).terms(rng.exponential(1.0, (20_000, 12)), weights).sum(axis=1)
    p = [math.exp(DilutedSum(0.2).log_sf(float(one), weights)) for one in sums[:500]]
    assert laws.kstest(p, "uniform").pvalue < 1e-9


@given(st.lists(st.floats(1e-6, 36.0), min_size=1, max_size=30), st.randoms())
def test_sums_are_the_same_in_any_order(scores: list[float], order: object) -> None:
    statistic = DilutedSum(0.15)
    weights = np.array([(1 + i % 32) / 32 for i in range(len(scores))])
    terms = statistic.terms(np.array(scores), weights).tolist()
    total = sum(terms)
    order.shuffle(terms)  # type: ignore[attr-defined]
    assert sum(terms) == total


def test_far_tails_stay_between_bounds() -> None:
    """At x above the null's mean of the bet's logarithm, p is below e^-x, and not far below."""
    n = 2000
    ones, statistic = np.ones(n), DilutedSum(0.3)
    scores = -np.log1p(-(np.arange(n) + 0.5) / n)
    scores[::4] *= 1.7
    growth = float(diluted_log_growth([0.3], scores, ones)[0])
    assert growth > 15
    log_sf = statistic.log_sf(float(statistic.terms(scores, ones).sum()), ones)
    rounded = n * statistic.step
    assert -growth - math.log(10 * n) < log_sf <= -growth + rounded
    assert log_sf < gamma_log_sf(float(scores.sum()), n) + math.log(n)


def test_nothing_and_everything() -> None:
    statistic = DilutedSum(0.1)
    assert statistic.log_sf(0.0, np.zeros(0)) == 0.0
    assert statistic.spread(np.zeros(0)) == 0.0
    assert statistic.terms(np.zeros((3, 0)), np.zeros(0)).shape == (3, 0)
    assert statistic.log_sf(1e6, np.ones(5)) == -math.inf
    assert statistic.log_sf(-1e6, np.ones(5)) == 0.0


def test_what_is_out_of_range_is_refused() -> None:
    one = np.ones(1)
    for shares, scores, weights in (
        ((1.1,), one, one),
        ((0.1,), -one, one),
        ((0.1,), one, 2 * one),
    ):
        with pytest.raises(SchemeParameterError):
            diluted_log_growth(shares, scores, weights)
    assert diluted_log_growth((0.1,), np.zeros(0), np.zeros(0)).tolist() == [0.0]
    assert share_of(1e-9) == SMALLEST_SHARE
    for share in (0.0, 1e-6, 5e-324, 1.5, math.nan):
        with pytest.raises(SchemeParameterError):
            DilutedSum(share)
