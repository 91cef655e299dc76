"""Change points against all divisions of short documents, and windows that hold no other."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.detection.edges import _most_likely, marked_stretches, significant_windows
from watermark.detection.windows import window_sums


def value(gains: np.ndarray, stretches: list[tuple[int, int]], price: float) -> float:
    """Return what a division is worth: a change at either end of the document costs but half."""
    total = 0.0
    for start, stop in stretches:
        total += gains[start:stop].sum() - price * (1 + (stop < len(gains)))
    return total


def all_divisions(m: int) -> list[list[tuple[int, int]]]:
    found: list[list[tuple[int, int]]] = [[]]
    for count in range(2, m + 2, 2):
        found += [
            list(zip(bounds[::2], bounds[1::2], strict=True))
            for bounds in combinations(range(m + 1), count)
        ]
    return found


DIVISIONS = {m: all_divisions(m) for m in range(1, 9)}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-30, 30), min_size=1, max_size=8), st.sampled_from([0.7, 3.1, 11.3]))
def test_no_division_is_more_likely(steps: list[int], price: float) -> None:
    gains = np.array(steps) / 2
    best = max(value(gains, one, price) for one in DIVISIONS[len(gains)])
    assert math.isclose(value(gains, _most_likely(gains, price), price), best, abs_tol=1e-9)


def test_the_smallest_windows_are_kept() -> None:
    scores = np.random.default_rng(0).standard_exponential(400)
    scores[100:180] += 1.5
    found = significant_windows(scores, 12.0)
    every = [
        (start, start + level.length)
        for level in window_sums(scores)
        for start, log in zip(
            (np.arange(len(level.sums)) * level.step).tolist(), level.log_pvalues(), strict=True
        )
        if -log > 12.0
    ]
    least = [
        one
        for one in every
        if not any(one[0] <= a and b <= one[1] and (a, b) != one for a, b in every)
    ]
    assert found == sorted(least)
    assert 0 < len(found) < len(every)


def test_two_marks_are_two_stretches() -> None:
    scores = np.random.default_rng(1).standard_exponential(2000)
    scores[300:420] *= 2.6
    scores[1500:1650] *= 2.6
    found = marked_stretches(scores, significant_windows(scores, 15.0))
    assert len(found) == 2
    for (start, stop), (first, last) in zip(found, [(300, 420), (1500, 1650)], strict=True):
        assert abs(start - first) < 15
        assert abs(stop - last) < 15


def test_a_weak_mark_is_its_window() -> None:
    """Too weak for change points: the window that found it is what is reported."""
    scores = np.random.default_rng(2).standard_exponential(4000) * 1.12
    windows = significant_windows(scores, 15.0)
    assert windows
    stretches = marked_stretches(scores, windows)
    for start, stop in windows:
        assert any(first < stop and start < last for first, last in stretches)


def test_no_window_no_stretch() -> None:
    assert marked_stretches(np.ones(100), []) == []
    assert significant_windows(np.ones(100), 20.0) == []
