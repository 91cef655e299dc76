"""Many tests at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence


def holm(log_pvalues: Sequence[float], *, family_size: int | None = None) -> list[float]:
    """Return Holm's adjusted log p-values, in the order given.

    Rejecting where the adjusted value is at most log alpha keeps the chance of any false
    rejection in the family at alpha, whatever the dependence between the tests.

    Args:
        log_pvalues: Natural logs of valid p-values, of a family fixed before looking.
        family_size: Tests in the family where only some of them are given; None for all. Any
            selection by size will do: see Returns.

    Returns:
        One number <= 0 a test, never below its own log p-value. Where tests are left out, what
        is rejected is rejected by Holm with all of them too: a test left out that comes before
        a given one has a p-value no larger than the first given one after it, and a rank no
        smaller than that one's among the given, so its own bound is met as well.

    Raises:
        SchemeParameterError: The family is smaller than what is given of it.

    Source: Holm, Scand. J. Statist. 6 (1979).
    """
    logs = np.asarray(log_pvalues, np.float64)
    order = np.argsort(logs, kind="stable")
    size = len(logs) if family_size is None else family_size
    if size < len(logs):
        raise SchemeParameterError(f"{len(logs)} tests are no part of a family of {size}")
    factors = np.log(size - np.arange(len(logs)))
    stepped = np.maximum.accumulate(logs[order] + factors)
    adjusted = np.empty_like(logs)
    adjusted[order] = np.minimum(stepped, 0.0)
    return [float(value) for value in adjusted]
