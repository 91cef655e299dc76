"""Binomial tails against exact arithmetic."""

from __future__ import annotations

import itertools
import math

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.errors import SchemeParameterError
from watermark.stats import binomial_log_sf


def exact(count: int, n: int, probability: float) -> float:
    with mpmath.workdps(60):
        p = mpmath.mpf(probability)
        tail = mpmath.fsum(
            mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k) for k in range(count, n + 1)
        )
        return float(mpmath.log(tail))


@pytest.mark.parametrize(
    ("count", "n", "probability"),
    [(1, 1, 0.5), (7, 20, 0.25), (900, 1000, 0.25), (2000, 2000, 0.01), (1500, 2000, 1e-4),
     (40, 2000, 0.5), (3, 1000, 1e-4), (1990, 2000, 0.3)],
)  # fmt: skip
def test_exact_arithmetic_agrees(count: int, n: int, probability: float) -> None:
    assert binomial_log_sf(count, n, probability) == pytest.approx(
        exact(count, n, probability), rel=1e-11, abs=1e-13
    )


@given(st.integers(1, 300), st.floats(0.01, 0.99))
def test_tails_fall_from_one(n: int, probability: float) -> None:
    tails = [binomial_log_sf(count, n, probability) for count in range(n + 1)]
    assert tails[0] == 0.0
    assert tails[-1] == pytest.approx(n * math.log(probability), rel=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(tails))


@pytest.mark.parametrize("bad", [(-1, 3, 0.5), (4, 3, 0.5), (1, 3, 0.0), (1, 3, math.nan)])
def test_what_is_out_of_range_is_refused(bad: tuple[int, int, float]) -> None:
    with pytest.raises(SchemeParameterError):
        binomial_log_sf(*bad)
