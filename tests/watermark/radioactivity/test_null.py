"""Clean suspects are left alone, and every rule that is broken is seen to fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.radioactivity.clean import ALPHA, Trial, run

KEPT = [one for one in Trial if not one.is_broken]
BROKEN = [one for one in Trial if one.is_broken]


def log_pvalues(trial: Trial, n_keys: int) -> np.ndarray:
    return np.array([run(trial, seed).log_pvalue for seed in range(n_keys)])


def check_kept(trial: Trial, n_keys: int) -> None:
    """No more rejections than chance allows at 1e-4, by p and by e."""
    outcomes = [run(trial, seed) for seed in range(n_keys)]
    by_p = sum(one.log_pvalue <= math.log(ALPHA) for one in outcomes)
    by_e = sum(one.log_evalue_peak >= -math.log(ALPHA) for one in outcomes)
    for count in (by_p, by_e):
        assert stats.binom.sf(count - 1, n_keys, ALPHA) > 1e-4, (trial, by_p, by_e)


def check_broken(trial: Trial, n_keys: int) -> None:
    count = int((log_pvalues(trial, n_keys) <= math.log(ALPHA)).sum())
    assert stats.binom.sf(count - 1, n_keys, ALPHA) < 1e-3, (trial, count)


def test_a_clean_suspect_that_copies_marked_text_is_left_alone() -> None:
    check_kept(Trial.CLOSED, 15)


@pytest.mark.parametrize(
    ("trial", "n_keys"),
    [(Trial.BROKEN_VIEW, 8), (Trial.BROKEN_PAIRS, 4)],
    ids=lambda one: getattr(one, "name", ""),
)
def test_a_broken_rule_is_seen(trial: Trial, n_keys: int) -> None:
    check_broken(trial, n_keys)


@pytest.mark.slow
@pytest.mark.parametrize("trial", KEPT, ids=lambda one: one.name)
def test_every_design_keeps_its_level(trial: Trial) -> None:
    check_kept(trial, 40)


@pytest.mark.slow
@pytest.mark.parametrize("trial", BROKEN, ids=lambda one: one.name)
def test_every_negative_control_fails(trial: Trial) -> None:
    check_broken(trial, 40)
