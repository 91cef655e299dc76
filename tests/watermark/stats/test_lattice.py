"""The sum of draws from a finite law of integers: by convolution, far into the tail."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from watermark.errors import SchemeParameterError
from watermark.stats import integer_sum_log_sf


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
