"""Many tests at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def holm(log_pvalues: Sequence[float]) -> list[float]:
    """Return Holm's adjusted log p-values, in the order given.

    Rejecting where the adjusted value is at most log alpha keeps the chance of any false
    rejection in the family at alpha, whatever the dependence between the tests.

    Args:
        log_pvalues: Natural logs of valid p-values; the whole family, fixed before looking.

    Returns:
        One number <= 0 a test, never below its own log p-value.

    Source: Holm, Scand. J. Statist. 6 (1979).
    """
    logs = np.asarray(log_pvalues, np.float64)
    order = np.argsort(logs, kind="stable")
    factors = np.log(np.arange(len(logs), 0, -1))
    stepped = np.maximum.accumulate(logs[order] + factors)
    adjusted = np.empty_like(logs)
    adjusted[order] = np.minimum(stepped, 0.0)
    return [float(value) for value in adjusted]
