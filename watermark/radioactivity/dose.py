"""How much: the dose, and what a non-rejection excludes.

The dose is the mean excess of the suspect's scores as a share of that of the marked text itself:
1 for whoever says what was delivered, 0 for whoever never saw it. A student's dose is below the
share of marked text in its training, by a factor that a laboratory can measure and nobody knows
of a stranger: a dose bounds what is left of the mark in what the suspect says.

Scores of one answer may lean on each other once the null is false, so that the answer is the unit.
The interval is an asymptotic confidence sequence: it holds at every time at once, as the number of
answers grows, and so at the time at which one stopped.

Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Ann. Stat. 52 (2024), theorem 2.2 and
section on tuning, for the boundary; ratio of sums by linearization (delta method).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL: Final = 0.05
FEWEST_ANSWERS: Final = 20
"""Below, no interval is given: the law of large numbers has not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """A share of the excess of marked text, with its interval.

    Attributes:
        estimate: In shares of `Design.reference`; may be below 0.
        low: Lower end at 95%; -inf where there are too few answers.
        high: Upper end at 95%, and so the largest dose that is not excluded.
        n_answers: Answers that it rests on.
    """

    estimate: float
    low: float
    high: float
    n_answers: int


def dose(
    excesses: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    reference: float,
    n_planned: int,
) -> Dose:
    """Return the dose in the answers of an audit.

    Args:
        excesses: Of each answer the weighted sum of its scores' excess over 1, shape (n,).
        weights: Of each the sum of its weights, shape (n,).
        reference: Mean excess of marked text, in nats a score, > 0.
        n_planned: Answers at which the sequence is tuned to be tightest, >= 1.
    """
    counts = weights > 0
    x, w = excesses[counts], weights[counts]
    n = len(x)
    if n == 0:
        return Dose(estimate=0.0, low=-math.inf, high=math.inf, n_answers=0)
    mean = float(x.sum() / w.sum())
    if n < FEWEST_ANSWERS:
        return Dose(estimate=mean / reference, low=-math.inf, high=math.inf, n_answers=n)
    spread = float(np.std(x - mean * w, ddof=1)) / float(w.mean())
    half = spread * _boundary(n, n_planned)
    return Dose(
        estimate=mean / reference,
        low=(mean - half) / reference,
        high=(mean + half) / reference,
        n_answers=n,
    )


def _boundary(n: int, n_planned: int) -> float:
    """Return the half-width of the sequence after n answers, in standard deviations of one."""
    tuned = -2.0 * math.log(LEVEL)
    rho2 = (tuned + math.log(tuned + 1.0)) / max(n_planned, FEWEST_ANSWERS)
    grown = n * rho2 + 1.0
    return math.sqrt(2.0 * grown / (n**2 * rho2) * math.log(math.sqrt(grown) / LEVEL))
