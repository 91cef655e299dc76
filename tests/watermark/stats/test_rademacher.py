"""Tails of coin sums: never below the exact law, and not far above the Gaussian one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from watermark.errors import SchemeParameterError
from watermark.stats import rademacher_log_sf

WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=10)


def exact_tail(weights: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return every value of the sum, and the probability that it is reached, by enumeration."""
    signs = np.array(list(itertools.product([-1, 1], repeat=len(weights))))
    sums = signs @ np.array(weights)
    values = np.unique(sums)
    return values.astype(float), np.array([(sums >= value).mean() for value in values])


@given(WEIGHTS)
def test_the_bound_holds_at_every_value_of_the_sum(weights: list[int]) -> None:
    values, tail = exact_tail(weights)
    bound = np.exp(rademacher_log_sf(values, np.array(weights, float)))
    assert (bound >= tail * (1 - 1e-12)).all()
    assert (bound <= 1).all()


@pytest.mark.parametrize("n", [100, 1000, 20_000])
def test_equal_weights_are_held_against_the_binomial_law(n: int) -> None:
    heads = np.arange(n // 2 + 1, n // 2 + int(15 * math.sqrt(n) / 2))
    heads = heads[heads <= n]
    exact = stats.binom(n, 0.5).logsf(heads - 1)
    values = (2.0 * heads - n) * 3.0
    bound = rademacher_log_sf(values.astype(np.float64), np.full(n, 3.0))
    assert (bound >= exact - 1e-9).all()
    deviation = (2 * heads - n) / math.sqrt(n)
    assert (bound <= special.log_ndtr(-deviation) + math.log(3.18)).all()


def test_the_gaussian_tail_without_its_factor_is_no_bound() -> None:
    values, tail = exact_tail([1, 1])  # P(T >= 2) = 1/4, the Gaussian says .079
    gaussian = np.exp(special.log_ndtr(-values / math.sqrt(2)))
    assert gaussian[-1] < tail[-1] / 3


def test_the_largest_sum_has_its_exact_probability() -> None:
    weights = np.array([1.0, 5.0, 7.0, 7.0])
    (bound,) = rademacher_log_sf(np.array([weights.sum()]), weights)
    assert math.isclose(bound, -4 * math.log(2), rel_tol=1e-9)


def test_no_text_and_no_excess_are_no_evidence() -> None:
    assert rademacher_log_sf(np.array([0.0, -3.0]), np.ones(5)).tolist() == [0.0, 0.0]
    assert rademacher_log_sf(np.array([1.0]), np.zeros(0)).tolist() == [0.0]
    assert rademacher_log_sf(np.zeros(0), np.ones(3)).tolist() == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(SchemeParameterError, match="finite"):
        rademacher_log_sf(np.array([bad]), np.ones(3))
    with pytest.raises(SchemeParameterError, match="finite"):
        rademacher_log_sf(np.ones(1), np.array([1.0, bad]))
