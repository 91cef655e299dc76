"""What a probe reads off the first list of log-probabilities of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from proxy.sampling.questions import Continuation

_EXCESS: Final = 1e-3


def is_distribution(one: Continuation, least: int) -> bool:
    """Return whether a list is long enough, and its probabilities sum to no more than one."""
    listed = one.logprobs[0]
    mass = float(np.exp(listed.logprobs).sum())
    return len(listed) >= least and 0 < mass <= 1 + _EXCESS


def likeliest(one: Continuation) -> float:
    """Return the log-probability of the likeliest token."""
    return float(one.logprobs[0].logprobs.max())


def gap(one: Continuation) -> float | None:
    """Return how far the two likeliest tokens are apart, None where fewer are listed."""
    if not one.logprobs or len(one.logprobs[0]) < 2:  # noqa: PLR2004 - two
        return None
    first, second = -np.sort(-one.logprobs[0].logprobs)[:2]
    return float(first - second)
