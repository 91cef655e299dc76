"""From 64 bits to a number in (0, 1), exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from watermark.seeding import (
    flip_levels,
    levels_to_uniforms,
    mix64,
    pair_complements,
    pair_levels,
    pair_values,
    uniform_levels,
)

U64 = st.integers(0, 2**64 - 1)
MASK = 2**64 - 1


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def unshift(value: int, by: int) -> int:
    """Return the x with x ^ x >> by == value."""
    found = value
    for _ in range(64 // by + 1):
        found = value ^ found >> by
    return found


def unmix(z: int) -> int:
    z = unshift(z, 31)
    z = z * pow(0x94D049BB133111EB, -1, 2**64) & MASK
    z = unshift(z, 27)
    z = z * pow(0xBF58476D1CE4E5B9, -1, 2**64) & MASK
    return unshift(z, 30)


@given(U64)
def test_mixing_is_a_bijection(value: int) -> None:
    assert unmix(int(mix64(u64(value))[0])) == value


def test_mixing_leaves_its_input_alone() -> None:
    values = u64(1, 2, 3)
    mix64(values)
    assert values.tolist() == [1, 2, 3]


@given(st.integers(0, 2**52 - 1))
def test_uniforms_are_exact_and_flip_exactly(level: int) -> None:
    (u,) = levels_to_uniforms(u64(level)).tolist()
    (flipped,) = levels_to_uniforms(flip_levels(u64(level))).tolist()
    assert Fraction(u) == Fraction(2 * level + 1, 2**53)
    assert Fraction(u) + Fraction(flipped) == 1
    assert flip_levels(flip_levels(u64(level))).tolist() == [level]


def test_the_edges() -> None:
    edges = levels_to_uniforms(u64(0, 2**52 - 1)).tolist()
    assert edges == [2.0**-53, 1 - 2.0**-53]


@given(U64, st.lists(st.integers(0, 2**32 - 2), min_size=1, max_size=20, unique=True))
def test_tokens_of_one_stream_never_meet(stream: int, tokens: list[int]) -> None:
    values = pair_values(np.uint64(stream), np.array(tokens, np.uint32))
    assert len(set(values.tolist())) == len(tokens)
    levels = uniform_levels(np.uint64(stream), np.array(tokens, np.uint32))
    assert (pair_levels(values) == levels).all()
    assert levels.max() < 2**52


@given(st.lists(st.tuples(U64, st.integers(0, 2**32 - 2)), min_size=1, max_size=20))
def test_a_batch_is_its_positions(pairs: list[tuple[int, int]]) -> None:
    streams = u64(*(stream for stream, _ in pairs))
    tokens = np.array([token for _, token in pairs], np.uint32)
    before = streams.copy()
    together = uniform_levels(streams, tokens).tolist()
    alone = [int(uniform_levels(streams[i], tokens[i : i + 1])[0]) for i in range(len(pairs))]
    assert together == alone
    assert (streams == before).all()


@given(st.lists(U64, min_size=1, max_size=20))
def test_complements_are_the_uniforms_of_the_flipped_levels(values: list[int]) -> None:
    drawn = u64(*values, 0, 2**64 - 1)
    before = drawn.copy()
    expected = levels_to_uniforms(flip_levels(pair_levels(drawn)))
    assert pair_complements(drawn).tolist() == expected.tolist()
    assert drawn.tolist() == before.tolist()
