"""Betting keeps Ville's promise under the null, grows under the mark, and cheats are caught."""

from __future__ import annotations

import math

import numpy as np
import pytest

from watermark.errors import SchemeParameterError
from watermark.stats import BettingEvalue, binomial_log_sf

ALPHA = 0.05
RUNS = 400


def crossed(run: int, *, excess: float = 0.0, cheat: bool = False) -> bool:
    """Return whether a stream of 40 documents of 25 scores ever reaches 1 / alpha."""
    rng = np.random.default_rng(run)
    state = BettingEvalue()
    for _ in range(40):
        scores = rng.standard_exponential(25) * (1.0 + excess)
        state = state.update(scores, (scores > 1.0).astype(float) if cheat else None)
    return state.log_evalue_peak >= -math.log(ALPHA)


def test_the_null_crosses_at_most_as_often_as_promised() -> None:
    count = sum(crossed(run) for run in range(RUNS))
    assert binomial_log_sf(count, RUNS, ALPHA) > math.log(0.01)
    assert count > 0  # a bet that cannot win proves nothing


def test_a_bet_on_what_it_scores_breaks_the_promise() -> None:
    """The negative control: stakes that look at their own score."""
    count = sum(crossed(run, cheat=True) for run in range(50))
    assert binomial_log_sf(count, 50, ALPHA) < math.log(1e-6)


def test_a_mark_is_found() -> None:
    assert sum(crossed(run, excess=0.3) for run in range(50)) == 50


def test_the_mean_is_one_at_a_fixed_time() -> None:
    rng = np.random.default_rng(0)
    values = [
        math.exp(BettingEvalue(lambdas=(0.1, 0.3)).update(rng.standard_exponential(5)).log_evalue)
        for _ in range(5_000)
    ]
    assert np.mean(values) == pytest.approx(
        1.0, abs=5 * float(np.std(values)) / math.sqrt(len(values))
    )


def test_documents_may_be_cut_anywhere() -> None:
    scores = np.random.default_rng(1).standard_exponential(1000)
    whole = BettingEvalue().update(scores)
    parts = BettingEvalue().update(scores[:300]).update(scores[300:300]).update(scores[300:])
    assert parts.log_capitals == pytest.approx(whole.log_capitals, rel=1e-12)
    assert parts.n_scored == whole.n_scored == 1000
    assert parts.log_pvalue <= 0.0


def test_a_stake_of_all_can_lose_all() -> None:
    lost = BettingEvalue(lambdas=(1.0,)).update(np.array([2.0, 0.0]))
    assert lost.log_evalue == -math.inf
    assert lost.log_pvalue == 0.0


def test_what_is_no_bet_is_refused() -> None:
    for lambdas in ((), (1.5,), (math.nan,)):
        with pytest.raises(SchemeParameterError):
            BettingEvalue(lambdas=lambdas)
    with pytest.raises(SchemeParameterError, match="capital"):
        BettingEvalue(lambdas=(0.1,), log_capitals=(0.0, 0.0))
    with pytest.raises(SchemeParameterError, match=">= 0"):
        BettingEvalue().update(np.array([-1.0]))
    for stakes in (np.ones(2), np.array([1.5]), np.array([math.nan])):
        with pytest.raises(SchemeParameterError, match="stake"):
            BettingEvalue().update(np.ones(1), stakes)
