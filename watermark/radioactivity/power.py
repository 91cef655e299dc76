"""How many scored tokens an audit needs, before it asks for any.

Source: normal approximation of a sum of n scores of mean excess `effect` and standard deviation
1; for the bet, its log-capital on the best share drifts by effect^2 / 2 a score with variance
effect^2. An effect here is that of the sum of the scores; by the statistic (`stats.diluted`) sparse
marks need fewer scores than that, and marks that all scores carry some more.
"""

from __future__ import annotations

import math
from typing import Final

from scipy import special

from watermark.errors import AuditDesignError

SHARE_SCORED: Final = 0.45
"""Scored of generated tokens in a supervised audit: 43,400 of 92,000 in Sander et al. 2024."""


def scores_for_fixed_n(effect: float, *, alpha: float, power: float) -> int:
    """Return the scores that a test at a number fixed beforehand needs.

    Args:
        effect: Mean excess of a score, in standard deviations, > 0.
        alpha: Level, in (0, 1).
        power: Chance of success, in (0, 1).

    Raises:
        AuditDesignError: An argument is out of range.
    """
    _check(effect, alpha, power)
    deviation = -special.ndtri(alpha) + special.ndtri(power)
    return math.ceil((max(float(deviation), 0.0) / effect) ** 2)


def scores_for_bet(effect: float, *, alpha: float, power: float, n_parts: int) -> int:
    """Return the scores after which the anytime-valid test has rejected, with some chance.

    Args:
        effect: Mean excess of a score, in standard deviations, > 0.
        alpha: Level, in (0, 1).
        power: Chance of success, in (0, 1).
        n_parts: Into how many equal parts the capital is spread, of which one is on the best share.

    Raises:
        AuditDesignError: An argument is out of range.
    """
    _check(effect, alpha, power)
    wanted = math.log(n_parts / alpha)
    z = float(special.ndtri(power))
    return math.ceil(((z + math.sqrt(z * z + 2.0 * wanted)) / effect) ** 2)


def power_of_bet(n_scored: float, effect: float, *, alpha: float, n_parts: int) -> float:
    """Return the chance that the anytime-valid test has rejected after some scores.

    Args:
        n_scored: Scores, >= 0.
        effect: Mean excess of a score, in standard deviations, > 0.
        alpha: Level, in (0, 1).
        n_parts: As `scores_for_bet` has it.

    Raises:
        AuditDesignError: An argument is out of range.
    """
    _check(effect, alpha, 0.5)
    root = math.sqrt(max(n_scored, 0.0)) * effect
    if root == 0.0:
        return 0.0
    return float(special.ndtr(root / 2.0 - math.log(n_parts / alpha) / root))


def _check(effect: float, alpha: float, power: float) -> None:
    if not (0.0 < effect < math.inf and 0.0 < alpha < 1.0 and 0.0 < power < 1.0):
        raise AuditDesignError(
            f"effect {effect}, alpha {alpha}, power {power}: an effect is above 0, the others "
            "between 0 and 1"
        )
