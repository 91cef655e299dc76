"""What rotating keys costs an audit of a model that learned from marked text.

A student that was fed for a training window has seen 1/r of its text under each of r keys, and
shows 1/r of the effect under each. Pooled over the r keys, n tokens give a deviation of
sqrt(n) * effect / sqrt(r): the same certainty takes r times the tokens. Held against each key
alone, they take up to r^2 times the tokens: less as far as the luckiest of r keys helps.

Source: `benchmarks/rotation_price.py`, which simulates both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPrice:
    """What a rotation period costs.

    Attributes:
        n_keys: Keys that mark in a training window.
        pooled_factor: Tokens that an audit needs, as a multiple of those under one key, when
            the keys are tested together.
        single_factor: At most this when each is tested alone.
    """

    n_keys: float
    pooled_factor: float
    single_factor: float


def rotation_price(period: timedelta, training_window: timedelta) -> RotationPrice:
    """Return what it costs to rotate once a period.

    Args:
        period: How long one key marks.
        training_window: How long a student gathers text.

    Raises:
        SchemeParameterError: One of them is not positive.
    """
    if not period or not training_window or min(period, training_window).total_seconds() <= 0:
        raise SchemeParameterError("period and training window are positive; choose longer ones")
    n_keys = max(1.0, training_window / period)
    return RotationPrice(n_keys=n_keys, pooled_factor=n_keys, single_factor=n_keys**2)


def tokens_needed(effect: float, n_keys: float, *, log10_p: float) -> float:
    """Return the tokens at which the pooled test of r keys reaches a p-value, by its normal law.

    Args:
        effect: Mean excess of a score under one key alone, in standard deviations.
        n_keys: Keys in the training window.
        log10_p: The p-value, for example -6.
    """
    deviation = math.sqrt(2.0 * math.log(10.0) * -log10_p)  # upper bound of the quantile
    return n_keys * (deviation / effect) ** 2
