"""From a stream and a token to a number in (0, 1).

Everything is integer arithmetic modulo 2^64 until the last step, which is exact in float64, so
the same bits come out on every platform.

Source: `watermark/spec/seeding.md`, Stream and token to uniform; SplitMix64: Steele, Lea and
Flood, OOPSLA 2014, as finalized by Vigna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKEN_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
LEVEL_BITS: Final = 52
LAST_LEVEL: Final = np.uint64((1 << LEVEL_BITS) - 1)
COMPLEMENT_AS_FLOAT: Final = np.uint64(0x3FFFFFFFFFFFFFFF)
"""Complements the 52 bits of a level and puts them behind the exponent of 1.0, in one XOR."""
BEFORE_HALF_LEVEL: Final = 1.0 - 2.0**-53
_LEVEL_WIDTH: Final = 2.0**-LEVEL_BITS
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_FACTOR_1, _FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_TO_LEVEL: Final = np.uint64(64 - LEVEL_BITS)


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the SplitMix64 finalizer of every value, shape kept; a bijection on 64 bits."""
    shifted = values >> _SHIFT_1
    z = values ^ shifted
    z *= _FACTOR_1
    z ^= np.right_shift(z, _SHIFT_2, out=shifted)
    z *= _FACTOR_2
    z ^= np.right_shift(z, _SHIFT_3, out=shifted)
    return z


def pair_values(
    streams: NDArray[np.uint64] | np.uint64, tokens: NDArray[np.uint32]
) -> NDArray[np.uint64]:
    """Return the 64-bit value of (context, token) pairs.

    Args:
        streams: One stream for all tokens, or one each, shape (n,).
        tokens: Shape (n,).

    Returns:
        Shape (n,). Within one stream, distinct tokens have distinct values.
    """
    steps = tokens.astype(np.uint64)
    steps *= TOKEN_STEP
    steps += streams
    return mix64(steps)


def uniform_levels(
    streams: NDArray[np.uint64] | np.uint64, tokens: NDArray[np.uint32]
) -> NDArray[np.uint64]:
    """Return the integer k in 0..2^52 - 1 behind the uniform of every (stream, token)."""
    return pair_values(streams, tokens) >> _TO_LEVEL


def flip_levels(levels: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the levels of 1 - u, exactly."""
    return LAST_LEVEL - levels


def levels_to_uniforms(levels: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return u = (k + 1/2) 2^-52, exact in float64, in [2^-53, 1 - 2^-53]."""
    uniforms = levels.astype(np.float64)
    uniforms += 0.5
    uniforms *= _LEVEL_WIDTH
    return uniforms


def pair_complements(values: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return 1 - u of values that `pair_values` made, exact, in [2^-53, 1 - 2^-53].

    The same numbers as `levels_to_uniforms(flip_levels(pair_levels(values)))`, in three steps and
    without a conversion: with k' the complement of the level, 1 + k' 2^-52 is put together from
    bits, and subtracting 1 - 2^-53 leaves (k' + 1/2) 2^-52.
    """
    bits = values >> _TO_LEVEL
    bits ^= COMPLEMENT_AS_FLOAT
    complements = bits.view(np.float64)
    complements -= BEFORE_HALF_LEVEL
    return complements


def pair_levels(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the levels of values that `pair_values` made."""
    return values >> _TO_LEVEL
