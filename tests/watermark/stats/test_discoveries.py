"""The share of false discoveries is kept where documents share pairs, and by no luck."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from watermark.errors import SchemeParameterError
from watermark.stats import discoveries, gamma_log_sf


@given(
    st.lists(st.floats(-50, 0), min_size=1, max_size=60),
    st.floats(0.001, 0.9),
)
def test_what_is_named_is_what_scipy_names(logs: list[float], alpha: float) -> None:
    array = np.array(logs)
    expected = stats.false_discovery_control(np.exp(array), method="bh")
    few = array <= math.log(alpha)
    found = discoveries(array[few], len(logs), alpha=alpha)
    named = found <= math.log(alpha)
    clear = np.abs(expected[few] - alpha) > 1e-9 * alpha
    assert (named == (expected[few] <= alpha))[clear].all()
    np.testing.assert_allclose(np.exp(found[named]), expected[few][named], rtol=1e-9)


def test_arguments_are_checked() -> None:
    logs = np.array([-1.0, -2.0])
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(SchemeParameterError, match="alpha"):
            discoveries(logs, 5, alpha=alpha)
    with pytest.raises(SchemeParameterError, match="count all"):
        discoveries(logs, 1, alpha=0.1)
    assert discoveries(np.zeros(0), 0, alpha=0.1).shape == (0,)


def simulated(rng: np.random.Generator, *, with_repeats: bool) -> bool:
    """Return whether anything is named among 30 null documents that share a template."""
    template, alpha = rng.exponential(size=20), 0.1
    logs = []
    for i in range(30):
        scores = np.concatenate([template[: i % 21], rng.exponential(size=10)])
        if with_repeats:  # each pair of the document counted four times
            scores = np.tile(scores, 4)
        logs.append(gamma_log_sf(float(scores.sum()), len(scores)))
    array = np.array(logs)
    few = array <= math.log(alpha)
    return bool((discoveries(array[few], 30, alpha=alpha) <= math.log(alpha)).any())


def test_documents_that_share_pairs_are_rarely_named() -> None:
    n = 1500
    named = sum(simulated(np.random.default_rng(seed), with_repeats=False) for seed in range(n))
    assert stats.binom.sf(named - 1, n, 0.1) > 0.001
    # The negative control: repeats within a document counted, the rate is far above the level.
    named = sum(simulated(np.random.default_rng(seed), with_repeats=True) for seed in range(200))
    assert stats.binom.sf(named - 1, 200, 0.1) < 1e-9
