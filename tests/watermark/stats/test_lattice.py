"""The sum of draws from a finite law of integers: by convolution, far into the tail."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from watermark.errors import SchemeParameterError
from watermark.stats import binomial_log_sf, integer_sum_log_sf
from watermark.stats.lattice import LatticeLaw, lattice_sum_log_sf


def by_convolution(counts: list[int], n: int) -> list[float]:
    """Return log P(sum >= s) for every s, in exact integers."""
    law = [1]
    for _ in range(n):
        law = np.convolve(np.array(law, object), np.array(counts, object)).tolist()
    tails = np.cumsum(law[::-1])[::-1]
    total = sum(counts) ** n
    return [float(mpmath.log(mpmath.mpf(int(t)) / total)) if t else -math.inf for t in tails]


@pytest.mark.parametrize("counts", [[1, 1], [3, 0, 5, 2], [0, 0, 7, 1, 0], [1, 65535], [65535, 1]])
@pytest.mark.parametrize("n", [1, 3, 30])
def test_every_tail_is_that_of_the_convolution(counts: list[int], n: int) -> None:
    expected = by_convolution(counts, n)
    for statistic, log_sf in enumerate(expected):
        found = integer_sum_log_sf(statistic, np.array(counts), n)
        assert found == pytest.approx(log_sf, rel=1e-10, abs=1e-12), statistic
    assert integer_sum_log_sf(-5, np.array(counts), n) == 0.0
    assert integer_sum_log_sf(len(expected) + 9, np.array(counts), n) == -math.inf


def test_wide_laws_keep_their_digits() -> None:
    values = np.random.default_rng(0).binomial(10**6, 0.5, 65536)
    counts = np.bincount(values)
    mean, sd = values.mean() * 30, values.std() * math.sqrt(30)
    for z in (0.0, 3.0, 8.0):
        found = integer_sum_log_sf(round(mean + z * sd), counts, 30)
        assert found == pytest.approx(stats.norm.logsf(z), abs=0.1 + 0.02 * z)


@pytest.mark.parametrize(("counts", "n"), [([0, 0], 3), ([1, 1], 0)])
def test_nothing_to_draw_is_refused(counts: list[int], n: int) -> None:
    with pytest.raises(SchemeParameterError):
        integer_sum_log_sf(1, np.array(counts), n)


def test_several_laws_are_convolved() -> None:
    laws = [([1, 2, 1], 7, -3), ([1, 0, 0, 5], 4, 2), ([9, 1], 40, 0)]
    whole = np.array([1], object)
    low = 0
    for counts, n, first in laws:
        low += n * first
        for _ in range(n):
            whole = np.convolve(whole, np.array(counts, object))
    total = int(sum(whole.tolist()))
    tails = np.cumsum(whole[::-1])[::-1].tolist()
    given = [
        LatticeLaw(first, np.log(np.maximum(counts, 1e-300)) - math.log(sum(counts)), n)
        for counts, n, first in laws
    ]
    for place, tail in enumerate(tails):
        found = lattice_sum_log_sf(low + place, given)
        assert found == pytest.approx(float(mpmath.log(mpmath.mpf(int(tail)) / total)), rel=1e-9)


def test_long_sums_need_only_a_window() -> None:
    """A million coins, of which the window holds some ten thousand, against the binomial law."""
    n = 10**6
    coin = [LatticeLaw(0, np.log([0.75, 0.25]), n)]
    for z in (-60.0, -3.0, 0.0, 3.0, 12.0, 200.0):
        statistic = round(n / 4 + z * math.sqrt(n * 3 / 16))
        assert lattice_sum_log_sf(statistic, coin) == pytest.approx(
            binomial_log_sf(statistic, n, 0.25), rel=1e-7, abs=1e-12
        )
