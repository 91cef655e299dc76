"""Many tests of which some are to be named: the share of false ones among them.

Why the step-up of Benjamini and Hochberg holds here, though documents share pairs. It is valid
where the p-values of true nulls have positive regression dependence on each of them (PRDS;
Benjamini and Yekutieli 2001, theorem 1.2). A document's statistic T_i is a sum of scores of
distinct pairs. Under its null these are independent Exp(1), and independent of the scores of all
pairs outside the document. Exp(1) has a log-concave density, so by Efron (1965) the expectation of
any function that rises with each score, given T_i = t, rises with t. Every other document's
statistic under the same key rises with each score it shares with document i and is otherwise
independent of them; under another key all scores are independent. So P(p in D | p_i = x) rises
in x for every rising set D, which is PRDS. A mark elsewhere in the corpus changes nothing, as long
as the null document shares no pair with it; one that does holds marked text, and is no null.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from watermark.errors import SchemeParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def discoveries(
    log_pvalues: NDArray[np.float64], n_tests: int, *, alpha: float
) -> NDArray[np.float64]:
    """Return Benjamini and Hochberg's adjusted log p-values of all tests that may be discoveries.

    Naming the tests whose adjusted value is at most log alpha keeps the expected share of true
    nulls among those named at alpha, where the p-values are PRDS. An adjusted value up to alpha
    depends on the p-values up to alpha alone: with m tests the k-th smallest counts only if
    m p_(k) / k <= alpha, so p_(k) <= alpha. The others need be counted, not kept.

    Args:
        log_pvalues: Natural logs of the p-values up to alpha, in any order; all of them.
        n_tests: Number of all tests made.
        alpha: Level, fixed before looking, in (0, 1).

    Returns:
        Shape (n,), in the order given: exact where it is at most log alpha; above, a number above
        log alpha.

    Raises:
        SchemeParameterError: alpha is not in (0, 1), or there are more p-values than tests.

    Source: Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995); Benjamini and Yekutieli, Ann.
    Statist. 29 (2001); Efron, Ann. Math. Statist. 36 (1965).
    """
    if not 0.0 < alpha < 1.0:
        raise SchemeParameterError(f"alpha must lie in (0, 1), found {alpha}")
    if len(log_pvalues) > n_tests:
        raise SchemeParameterError(f"{len(log_pvalues)} p-values of {n_tests} tests; count all")
    order = np.argsort(log_pvalues, kind="stable")
    ranks = np.log(np.arange(1, len(order) + 1))
    scaled = log_pvalues[order] + (math.log(max(n_tests, 1)) - ranks)
    stepped = np.minimum.accumulate(scaled[::-1])[::-1]
    adjusted = np.empty_like(log_pvalues)
    adjusted[order] = np.minimum(stepped, 0.0)
    return adjusted
