"""Holm's procedure, against its definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.errors import SchemeParameterError
from watermark.stats import holm


def rejected(pvalues: list[float], alpha: float) -> set[int]:
    """Return the tests that Holm's step-down procedure rejects."""
    order = sorted(range(len(pvalues)), key=lambda i: pvalues[i])
    found = set()
    for rank, i in enumerate(order):
        if pvalues[i] > alpha / (len(pvalues) - rank):
            break
        found.add(i)
    return found


LEVELS = (1e-9, 0.004, 0.011, 0.013, 0.02, 0.03, 0.2, 1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_adjusted_values_reject_as_the_procedure_does(count: int) -> None:
    for pvalues in itertools.product(LEVELS, repeat=count):
        adjusted = holm([math.log(p) for p in pvalues])
        for alpha in (0.01, 0.05, 0.1):
            expected = rejected(list(pvalues), alpha)
            assert {i for i, log in enumerate(adjusted) if log <= math.log(alpha)} == expected


def test_all_closed_tests_agree() -> None:
    """Holm is the closure of Bonferroni: i is rejected when every subset with i is."""
    for pvalues in itertools.product(LEVELS, repeat=3):
        adjusted = holm([math.log(p) for p in pvalues])
        for i in range(3):
            subsets = (
                subset
                for size in (1, 2, 3)
                for subset in itertools.combinations(range(3), size)
                if i in subset
            )
            expected = max(min(1.0, len(s) * min(pvalues[j] for j in s)) for s in subsets)
            assert math.exp(adjusted[i]) == pytest.approx(expected)


@given(st.lists(st.floats(-1e6, 0), max_size=20), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_nothing_gets_stronger(
    logs: list[float], shuffler: object
) -> None:
    adjusted = holm(logs)
    assert all(own <= after <= 0 for own, after in zip(logs, adjusted, strict=True))
    order = list(range(len(logs)))
    shuffler.shuffle(order)  # type: ignore[attr-defined]
    assert holm([logs[i] for i in order]) == [adjusted[i] for i in order]


def test_one_test_needs_no_correction() -> None:
    assert holm([-3.5]) == [-3.5]
    assert holm([]) == []


def test_the_family_wise_error_is_held() -> None:
    """All nulls true, fully dependent or independent: any rejection in at most alpha of runs."""
    rng = np.random.default_rng(0)
    runs, count, alpha = 4000, 5, 0.05
    for logs in (
        np.log(rng.random((runs, count))),
        np.log(np.repeat(rng.random((runs, 1)), count, axis=1)),
    ):
        errors = sum(min(holm(row)) <= math.log(alpha) for row in logs.tolist())
        assert errors / runs <= alpha + 4 * math.sqrt(alpha / runs)


@given(st.lists(st.floats(-30, 0), min_size=1, max_size=12), st.integers(0, 12), st.integers(0, 40))
def test_of_a_part_nothing_is_rejected_that_the_whole_keeps(
    logs: list[float], kept: int, more: int
) -> None:
    # Parts are kept from the front of two halves, as the best of two texts are.
    halves = [sorted(logs[::2]), sorted(logs[1::2])]
    whole = halves[0] + halves[1] + [0.0] * more
    part = halves[0][:kept] + halves[1][: kept + 1]
    adjusted = holm(part, family_size=len(whole))
    full = holm(whole)
    for level in (-0.5, -3.0, -10.0):
        places = [*range(len(halves[0][:kept])), *(len(halves[0]) + i for i in range(kept + 1))]
        for value, place in zip(adjusted, places, strict=False):
            assert value > level or full[place] <= level


def test_a_family_is_no_smaller_than_what_is_given_of_it() -> None:
    with pytest.raises(SchemeParameterError, match="no part of a family"):
        holm([-1.0, -2.0], family_size=1)
