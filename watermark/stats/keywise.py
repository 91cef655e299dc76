"""What holds for one fixed key, over the texts that it will meet.

A p-value here is exact over keys: of all keys that could have been drawn, a share alpha rejects a
given text. An operator has one key, and asks how often it rejects among unmarked texts. That rate
differs from key to key, the more so the more the texts repeat one another: a template that one
key happens to like is rejected in every copy.

Let R(K) be the rate under key K over any fixed law of texts. Its mean over keys is at most alpha,
so by Markov's inequality R(K) <= alpha / beta for all but a share beta of keys. That bound is for
one level, fixed before looking: another level may have another share of bad keys. An e-value has
one set of bad keys for all levels: with e(K) the mean of E over texts, e(K) <= 1 / beta for all
but a share beta of keys, and for those beta * E is an e-value, so that beta * E >= 1/a with
probability at most a, for every a at once.
"""

from __future__ import annotations

import math

from watermark.errors import SchemeParameterError


def keywise_rate(alpha: float, *, beta: float) -> float:
    """Return the rate over texts that all but a share beta of keys keep to at level alpha.

    Args:
        alpha: The level at which a p-value rejects, fixed before looking.
        beta: Share of keys for which the bound may fail, in (0, 1).

    Returns:
        min(1, alpha / beta).

    Raises:
        SchemeParameterError: alpha or beta is not in (0, 1).
    """
    _check("alpha", alpha)
    _check("beta", beta)
    return min(1.0, alpha / beta)


def keywise_log_evalue(log_evalue: float, *, beta: float) -> float:
    """Return log(beta E): an e-value over texts under all but a share beta of keys.

    Args:
        log_evalue: Natural log of an e-value over keys.
        beta: Share of keys for which it may fail, in (0, 1).

    Raises:
        SchemeParameterError: beta is not in (0, 1).
    """
    _check("beta", beta)
    return log_evalue + math.log(beta)


def _check(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise SchemeParameterError(f"{name} must lie in (0, 1), found {value}")
