"""Scores weighted by how much a mark could have said at each position: for low entropy.

Where a model had no choice, a mark shows nothing and only adds noise. With a model of the tester's
own, each position is weighted by the excess that a Gumbel-max winner would have there on average.

Rule 1: weights are made from the text and a model that knows no key, so that under the null they
are independent of all scores: the weighted sum has the law of a weighted sum of Exp(1), and ranks
among decoy keys need not even that. A model that is wrong, or another tokenizer, costs power, never
validity.
Rule 2: a weight comes from the distribution at its position, not from the token that stands there,
so that the same weights serve where a model is tested.

Source: for the excess: u of the winner has the law Beta(1 / p, 1) (Aaronson 2022), whose mean of
-log(1 - u) is the harmonic number of 1 / p.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import special

from watermark.detection.distinct_pairs import context_identities, distinct_pairs
from watermark.detection.key_scores import decoy_context_keys, key_score_blocks, pairs_generator
from watermark.detection.result import DecoyRank, DetectionResult
from watermark.errors import SchemeParameterError, TextTooShortError
from watermark.keys import LABEL_CONTEXT
from watermark.schemes import NullLaw
from watermark.stats import affordable_decoys, decoys_reached, weighted_exponentials_log_sf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from watermark.detection.distinct_pairs import DistinctPairs
    from watermark.keys import KeyRecord

LEVELS: Final = 32  # different weights: few make the closed form fast, and lose nothing
_DECOY_BLOCK: Final = 1 << 14


def expected_excess(probabilities: NDArray[np.float64]) -> float:
    """Return the mean excess of a Gumbel-max winner's score over 1, in nats, >= 0.

    Args:
        probabilities: Those of a list of candidates, in (0, 1]; what is missing to 1 counts as
            one candidate more, which can only understate the excess.
    """
    rest = max(0.0, 1.0 - float(probabilities.sum()))
    p = np.append(probabilities, rest) if rest > 0 else probabilities
    p = p[p > 0] / p.sum()
    return max(0.0, float(p @ (special.digamma(1.0 / p + 1.0) + np.euler_gamma)) - 1.0)


def weight_levels(excesses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights in 0..1 in steps of 1/32, the largest excess of a text at 1."""
    largest = float(excesses.max(initial=0.0))
    if largest <= 0.0:
        return np.ones(len(excesses))
    weights: NDArray[np.float64] = np.round(excesses / largest * LEVELS) / LEVELS
    return weights


def detect_weighted(
    record: KeyRecord,
    replies: Sequence[NDArray[np.uint32]],
    weights: Sequence[NDArray[np.float64]],
    *,
    exclude: Sequence[NDArray[np.uint32]] = (),
    decoys: int = 0,
) -> DetectionResult:
    """Hold a key against replies whose positions are weighted.

    Args:
        record: A key of this project's scheme.
        replies: Unit ids, tested together.
        weights: For each reply a weight >= 0 for each of its units, made without any key.
        exclude: Unit ids of texts that the writer had in view.
        decoys: Decoy keys to rank among, 0 for none.

    Returns:
        The law is `hypoexponential`, in closed form; `n_scored` counts pairs whose weight is not 0,
        `n_repeated` and `n_excluded` what was left out for that; the rest had a weight of 0.

    Raises:
        SchemeParameterError: The scheme is another's, or weights and units do not match.
        TextTooShortError: There is no position with a whole context before it.
    """
    if not record.is_copula or record.account_share_q16:
        raise SchemeParameterError(
            f"key {record.key_id!a} is an engine's or has an account share; weights serve keys "
            "of this project's scheme without one"
        )
    if [len(ids) for ids in replies] != [len(part) for part in weights]:
        raise SchemeParameterError("there must be one weight a unit in every reply")
    width = record.context_width
    pairs = distinct_pairs(replies, width, context_identities(exclude, width))
    if not pairs.n_contexts:
        raise TextTooShortError(
            f"nothing to score: a reply needs at least {width + 1} units at context width {width}"
        )
    kept = np.concatenate([part[width:] for part in weights])[pairs.places]
    n_scored = int(np.count_nonzero(kept))
    secret = np.frombuffer(record.secret.subkey(LABEL_CONTEXT, 16), np.uint8).reshape(1, 16)
    (statistic,) = _sums(secret, pairs, kept)
    log_pvalue = weighted_exponentials_log_sf(statistic, kept) if n_scored else 0.0
    return DetectionResult(
        statistic=float(statistic),
        n_tokens=pairs.n_tokens,
        n_scored=n_scored,
        n_repeated=pairs.n_contexts - len(pairs) - pairs.n_excluded,
        n_excluded=pairs.n_excluded,
        log_pvalue=log_pvalue,
        log_pvalue_family=log_pvalue,
        key_id=record.key_id,
        unit=record.unit,
        scheme=record.scheme,
        context_width=width,
        law=_law(kept[kept > 0]),
        decoys=_rank(statistic, pairs, kept, decoys) if decoys else None,
    )


def _law(weights: NDArray[np.float64]) -> NullLaw:
    if not len(weights):
        return NullLaw("hypoexponential")
    spread = float(np.sqrt(np.mean(weights**2)))
    return NullLaw("hypoexponential", score_mean=float(weights.mean()), score_sd=spread)


def _sums(
    keys: NDArray[np.uint8],
    pairs: DistinctPairs,
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the weighted score sum under every key, shape (k,)."""
    sums = np.empty(len(keys))
    for rows, scores in key_score_blocks(keys, pairs.contexts, pairs.tokens):
        sums[rows] = scores @ weights
    return sums


def _rank(
    statistic: float,
    pairs: DistinctPairs,
    weights: NDArray[np.float64],
    decoys: int,
) -> DecoyRank:
    """Return where the key stands among decoy keys that follow from the pairs."""
    rng = pairs_generator(pairs.contexts, pairs.tokens)
    n_decoys = affordable_decoys(decoys, len(pairs))
    reached = 0
    for first in range(0, n_decoys, _DECOY_BLOCK):
        keys = decoy_context_keys(min(_DECOY_BLOCK, n_decoys - first), rng)
        sums = _sums(keys, pairs, weights)
        reached += int(decoys_reached(np.array([statistic]), sums)[0])
    return DecoyRank.of(n_decoys, reached)
