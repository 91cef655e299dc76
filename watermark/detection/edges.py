"""Where a mark begins and ends, once it is known to be there.

A marked stretch scores Exp with a mean above 1, the rest Exp(1). Given that mean, the most likely
division of a document into marked and unmarked stretches is a shortest path through two states
(Viterbi), with a price of log m for every change: the edges are maximum-likelihood change points.
The mean is taken from the significant windows that hold no smaller significant one.

Nothing here is a test: what is significant has been decided before (`watermark.detection.windows`).
A stretch that holds no significant window is dropped, and a significant window in no stretch is
reported as it stands.

Source: Viterbi 1967; the price is Schwarz's, one parameter a change.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.detection.windows import window_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Interval = tuple[int, int]

_LEAST_MEAN: Final = 1.01  # a mean of 1 could tell nothing apart


def significant_windows(scores: NDArray[np.float64], threshold: float) -> list[Interval]:
    """Return the windows beyond a threshold that hold no shorter one, as [start, stop) of scores.

    Args:
        scores: Those of one document, shape (m,).
        threshold: What -log p of a window must exceed.
    """
    found = np.zeros((0, 2), np.int64)
    for level in window_sums(scores):
        starts = np.flatnonzero(-level.log_pvalues() > threshold) * level.step
        stops = starts + level.length
        is_least = ~_hold_one(starts, stops, found)
        found = np.concatenate([found, np.stack([starts, stops], axis=1)[is_least]])
        found = found[np.argsort(found[:, 0], kind="stable")]
    return [(start, stop) for start, stop in found.tolist()]


def _hold_one(
    starts: NDArray[np.int64], stops: NDArray[np.int64], found: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which windows hold one of those found, which ascend by their start."""
    if not len(found):
        return np.zeros(len(starts), np.bool_)
    earliest = np.append(np.minimum.accumulate(found[::-1, 1])[::-1], np.iinfo(np.int64).max)
    holds: NDArray[np.bool_] = earliest[np.searchsorted(found[:, 0], starts)] <= stops
    return holds


def marked_stretches(scores: NDArray[np.float64], windows: Sequence[Interval]) -> list[Interval]:
    """Return the marked stretches that significant windows point at, as [start, stop) of scores.

    Args:
        scores: Those of one document, shape (m,).
        windows: As `significant_windows` gives them.
    """
    if not windows:
        return []
    covered = np.zeros(len(scores), np.bool_)
    for start, stop in windows:
        covered[start:stop] = True
    mean = max(_LEAST_MEAN, float(scores[covered].mean()))
    likely = _most_likely(scores * (1 - 1 / mean) - math.log(mean), math.log(len(scores)))
    held = [one for one in likely if any(_overlap(one, window) for window in windows)]
    missed = [window for window in windows if not any(_overlap(one, window) for one in held)]
    return _merge([*held, *missed])


def _overlap(one: Interval, other: Interval) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def _merge(intervals: Sequence[Interval]) -> list[Interval]:
    """Return intervals in order, those that touch joined."""
    merged: list[Interval] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _most_likely(gains: NDArray[np.float64], price: float) -> list[Interval]:
    """Return the stretches that maximize the sum of gains within, less two prices each.

    Args:
        gains: Log-likelihood ratio of marked to unmarked at every score, shape (m,).
        price: Of one change of state, > 0.
    """
    outside, inside = 0.0, -price
    # Where the best path that is inside, or outside, after each score came from.
    entered = np.zeros(len(gains), np.bool_)
    left = np.zeros(len(gains), np.bool_)
    for place, gain in enumerate(gains.tolist()):
        entered[place] = outside - price > inside
        left[place] = inside - price > outside
        outside, inside = max(outside, inside - price), max(inside, outside - price) + gain
    return _trace(entered, left, ends_inside=inside > outside)


def _trace(
    entered: NDArray[np.bool_], left: NDArray[np.bool_], *, ends_inside: bool
) -> list[Interval]:
    """Return the stretches of the best path, walked from its end."""
    stretches: list[Interval] = []
    is_inside, stop = ends_inside, len(entered)
    for place in range(len(entered) - 1, -1, -1):
        if is_inside and entered[place]:
            stretches.append((place, stop))
            is_inside = False
        elif not is_inside and left[place]:
            is_inside, stop = True, place
    return [*([(0, stop)] if is_inside else []), *reversed(stretches)]
