"""Windows by hand, and the law of the best one by decoy keys and by draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from watermark.detection.windows import (
    MaximumNull,
    WindowSums,
    decoy_null,
    maximum,
    samples_for,
    simulated_null,
    window_sums,
)
from watermark.errors import SchemeParameterError
from watermark.schemes import Positions
from watermark.stats import gamma_log_sf


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(0, 5))
def test_windows_are_the_definitions(m: int, seed: int) -> None:
    scores = np.random.default_rng(seed).standard_exponential(m)
    found = {}
    for level in window_sums(scores):
        starts = [place * level.step for place in range(len(level.sums))]
        for start, total in zip(starts, level.sums, strict=True):
            found[start, start + level.length] = total
    expected = {(0, m)}
    length = 16
    while length < m:
        blocks = m // (length // 2)
        expected |= {(j * length // 2, j * length // 2 + length) for j in range(blocks - 1)}
        length *= 2
    assert set(found) == expected
    for (start, stop), total in found.items():
        assert total == pytest.approx(scores[start:stop].sum(), rel=1e-12)
    logs = [gamma_log_sf(total, stop - start) for (start, stop), total in found.items()]
    assert maximum(scores) == pytest.approx(-min(logs), rel=1e-9)
    assert maximum(np.stack([scores, scores[::-1]]))[0] == pytest.approx(maximum(scores))


def test_tails_do_not_end() -> None:
    level = WindowSums(16, 8, np.array([10.0, 2000.0]))
    for total, log in zip(level.sums, level.log_pvalues(), strict=True):
        assert log == pytest.approx(gamma_log_sf(float(total), 16), rel=1e-9)


def test_decoy_keys_and_drawn_scores_have_one_law() -> None:
    """The argument for one null for all documents, on a text full of repeats."""
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(0, 12, (4000, 3)).astype(np.uint32), axis=0)
    positions = Positions(rows[:, :2].copy(), rows[:, 2].copy())
    decoys = decoy_null(positions, 1500, rng)
    drawn = simulated_null(len(rows), 1500, rng)
    assert (decoys.source, drawn.source) == ("decoy keys", "simulated scores")
    assert stats.ks_2samp(decoys.maxima, drawn.maxima).pvalue > 1e-3
    other = simulated_null(8 * len(rows), 1500, rng)  # negative control: another length
    assert stats.ks_2samp(drawn.maxima, other.maxima).pvalue < 1e-3


def test_pvalue_and_threshold_agree() -> None:
    null = simulated_null(100, samples_for(0.01), np.random.default_rng(0))
    assert len(null.maxima) == 300
    assert null.pvalue(math.inf) == 1 / 301
    assert null.pvalue(0.0) == 1.0
    for alpha in (0.01, 0.05, 0.5):
        threshold = null.threshold(alpha)
        assert null.pvalue(threshold) > alpha - 1 / 301
        assert null.pvalue(np.nextafter(threshold, math.inf)) <= alpha
    with pytest.raises(SchemeParameterError, match="at least 3000"):
        null.threshold(0.001)


def test_the_threshold_counts_ties() -> None:
    null = MaximumNull(1, np.array([3.0, 2.0, 2.0, 1.0]), "by hand")
    assert null.pvalue(2.0) == 4 / 5
    assert null.pvalue(2.5) == 2 / 5
    assert null.threshold(0.4) == 2.0


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan, -1.0])
def test_levels_are_probabilities(alpha: float) -> None:
    with pytest.raises(SchemeParameterError):
        samples_for(alpha)
