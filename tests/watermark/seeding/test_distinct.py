"""Each value once, exactly, even where only the high bits of values meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.seeding import first_occurrences, repeats

MASK = 2**64 - 1


def by_set(values: list[int]) -> list[bool]:
    seen: set[int] = set()
    found = []
    for value in values:
        found.append(value not in seen)
        seen.add(value)
    return found


def first(values: list[int]) -> list[bool]:
    answer: list[bool] = first_occurrences(np.array(values, np.uint64)).tolist()
    return answer


@settings(max_examples=300)
@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, MASK)), max_size=60))
def test_firsts_are_a_sets(values: list[int]) -> None:
    assert first(values) == by_set(values)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=50))
def test_colliding_high_bits_are_told_apart(parts: list[tuple[int, int]]) -> None:
    """Values that differ in the last three bits only: all meet once the index is packed."""
    values = [high << 40 | low for high, low in parts]
    assert first(values) == by_set(values)


def test_collisions_among_many_others() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**64, 5000, dtype=np.uint64)
    pairs = [12345 << 50 | low for low in (1, 2, 1, 3, 2, 1)]
    values[[10, 400, 401, 3000, 4000, 4999]] = pairs
    assert first_occurrences(values).tolist() == by_set(values.tolist())
    assert (~first_occurrences(values)).sum() == 3


@pytest.mark.parametrize("n", [0, 1, 2, 255, 256, 257])
def test_all_alike_and_all_different(n: int) -> None:
    assert first([7] * n) == [True] * min(n, 1) + [False] * (n - 1)
    assert first(list(range(n))) == [True] * n


@pytest.mark.parametrize("values", [[], [7], [3, 2, 1], [1, 1 << 40, 2]])
def test_nothing_repeats(values: list[int]) -> None:
    assert repeats(np.array(values, np.uint64)) is None


def test_a_repeat_is_where_a_value_came_again() -> None:
    found = repeats(np.array([4, 1 << 40, 4, 5, 1 << 40], np.uint64))
    assert found is not None
    assert found.tolist() == [False, False, True, False, True]


def test_the_input_is_left_alone() -> None:
    values = np.array([3, 1, 3], np.uint64)
    first_occurrences(values)
    assert values.tolist() == [3, 1, 3]
