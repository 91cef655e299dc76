"""Ranks among decoys are valid p-values, ties and all; the key-wise bounds are Markov's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.errors import SchemeParameterError
from watermark.stats import (
    affordable_decoys,
    decoy_log_pvalue,
    decoys_for,
    decoys_reached,
    keywise_log_evalue,
    keywise_rate,
    smallest_log_pvalue,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def p_value(statistic: float, decoys: NDArray[np.float64]) -> float:
    (reached,) = decoys_reached(np.array([statistic]), decoys)
    return math.exp(decoy_log_pvalue(int(reached), len(decoys)))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 40))
def test_every_exchangeable_sample_keeps_every_level(values: list[int], of_ten: int) -> None:
    """By enumeration: whichever of the values was the true one, p <= alpha at most that often."""
    sample = np.array(values, np.float64)
    p = [p_value(float(sample[i]), np.delete(sample, i)) for i in range(len(sample))]
    alpha = of_ten / 40
    assert np.mean(np.array(p) <= alpha + 1e-12) <= alpha + 1e-12


def test_leaving_out_the_ones_or_the_ties_breaks_the_level() -> None:
    """The negative control: the naive share of decoys above is 0 too often."""
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 3, (4000, 20)).astype(float)
    naive = (samples[:, 1:] > samples[:, :1]).mean(axis=1)
    right = np.array([p_value(row[0], row[1:]) for row in samples])
    assert (right <= 0.05).mean() <= 0.05
    assert (naive <= 0.05).mean() > 0.2


def test_the_smallest_is_what_the_number_of_decoys_supports() -> None:
    assert p_value(9.0, np.zeros(999)) == pytest.approx(1e-3)
    assert decoy_log_pvalue(0, 999) == smallest_log_pvalue(999) == -math.log(1000)
    assert p_value(0.0, np.zeros(999)) == 1.0
    for statistics, decoys in (
        (np.array([np.nan]), np.zeros(3)),
        (np.zeros(1), np.full(3, np.nan)),
    ):
        with pytest.raises(SchemeParameterError):
            decoys_reached(statistics, decoys)


def test_the_default_follows_the_level_as_far_as_the_work_allows() -> None:
    assert decoys_for(1e-3) == 3000
    assert affordable_decoys(3000, 1000) == 3000
    assert affordable_decoys(3_000_000, 10**6) == 10**11 // (10**6 + 600)
    assert affordable_decoys(3000, 10**12) == 1
    assert affordable_decoys(0, 10) == 0
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(SchemeParameterError):
            decoys_for(alpha)


def test_keys_that_like_a_template_are_as_rare_as_markov_says() -> None:
    """All copies of a template are rejected, or none: the worst case over texts."""
    p_of_template = np.random.default_rng(0).random(20_000)
    alpha, beta = 0.01, 0.05
    rates = (p_of_template <= alpha).astype(float)
    assert (rates > keywise_rate(alpha, beta=beta)).mean() <= beta
    assert keywise_rate(0.5, beta=0.1) == 1.0
    evalues = np.random.default_rng(1).standard_exponential(20_000)
    scaled = np.exp([keywise_log_evalue(math.log(e), beta=beta) for e in evalues])
    assert (scaled > 1.0).mean() <= beta
    for bad in (0.0, 1.0):
        with pytest.raises(SchemeParameterError):
            keywise_rate(0.01, beta=bad)
        with pytest.raises(SchemeParameterError):
            keywise_log_evalue(1.0, beta=bad)
