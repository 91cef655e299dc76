"""Weights by delivered contexts: independent of every tested key, or seen to fail.

The world is made to break them. Contexts stand in couples, a and b. A key goes from one to the
other where it likes that best of eight, and what it likes is talked about in a million other
conversations. The suspect is clean, and says "a b a" of every couple. Were each of two keys weighed
by the other's traffic, a pair would count for one where the other likes the reverse: both are on
where both are liked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from watermark.detection.key_scores import key_score_blocks
from watermark.keys import LABEL_CONTEXT, KeyRecord, SecretKey
from watermark.radioactivity import ContextWeights, PairCollector, Traffic, View, Weighting
from watermark.radioactivity.scoring import KeyScores, Scorer
from watermark.schemes import text_identities
from watermark.stats import weighted_exponentials_log_sf

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA = 0.01
N_COUPLES, N_OPTIONS, N_TALKS = 40, 8, 10**6
PLACES = np.array([[100 * c + side] for c in range(N_COUPLES) for side in (0, 1)], np.uint32)
CONTEXTS = PLACES.repeat(N_OPTIONS, axis=0)
OPTIONS = np.array(
    [
        [100 * c + 1 - side, *range(100 * c + 10, 100 * c + 9 + N_OPTIONS)]
        for c in range(N_COUPLES)
        for side in (0, 1)
    ],
    np.uint32,
)
COLLECTOR = PairCollector(View(1))
SAID = [
    COLLECTOR.answer(np.array([n, n + 1, n], np.uint32)) for n in range(0, 100 * N_COUPLES, 100)
]


def key(name: str, seed: int) -> KeyRecord:
    secret = SecretKey(name, np.random.default_rng([seed, ord(name)]).bytes(32))
    unit = "tokenizer:sha256:" + "0" * 64
    return KeyRecord(key_id=name, unit=unit, context_width=1, rho=1.0, secret=secret)


def delivered(record: KeyRecord) -> Traffic:
    subkey = np.frombuffer(record.secret.subkey(LABEL_CONTEXT, 16), np.uint8).reshape(1, 16)
    ((_, scores),) = key_score_blocks(subkey, CONTEXTS, OPTIONS.ravel(), account_share_q16=0)
    goes_over = scores.reshape(-1, N_OPTIONS).argmax(axis=1) == 0
    comes = goes_over.reshape(-1, 2)[:, ::-1].ravel()
    fingerprints = text_identities(PLACES)
    order = np.argsort(fingerprints)
    counts = np.where(comes, 1 + N_TALKS, 1)
    return Traffic(
        key_id=record.key_id, fingerprints=fingerprints[order], conversations=counts[order]
    )


def log_pvalue(parts: Sequence[KeyScores]) -> float:
    weights = np.concatenate([one.weights for one in parts])
    scores = np.concatenate([one.scores for one in parts])
    return weighted_exponentials_log_sf(float(weights @ scores), weights)


def rejections(n: int, *, are_tested_together: bool, with_third: bool) -> int:
    """Return how many pairs of keys reject a clean suspect.

    Args:
        n: Pairs of keys.
        are_tested_together: Whether each key's weights leave out the other's traffic too.
        with_third: Whether a third key delivered too, which is not tested.
    """
    found = 0
    for seed in range(n):
        records = [key("a", seed), key("b", seed)]
        traffic = [delivered(one) for one in (*records, *[key("c", seed)] * with_third)]
        weights = ContextWeights(
            weighting=Weighting.OTHER_KEYS, full_at=N_TALKS, traffic=tuple(traffic)
        )
        if are_tested_together:
            scorer = Scorer(records, SAID, weights)
            parts = [scorer.scores(index) for index in range(2)]
        else:
            parts = [Scorer([one], SAID, weights).scores(0) for one in records]
        found += log_pvalue(parts) <= math.log(ALPHA)
    return found


def test_no_tested_key_has_a_say_in_any_weight() -> None:
    records = [key("a", 1), key("b", 1), key("c", 1)]
    every = tuple(delivered(one) for one in records)
    weights = ContextWeights(weighting=Weighting.OTHER_KEYS, full_at=N_TALKS, traffic=every)
    alone = ContextWeights(weighting=Weighting.ALL_KEYS, full_at=N_TALKS, traffic=every[2:])
    assert weights.of(["a", "b"], PLACES).tolist() == alone.of(["a", "b"], PLACES).tolist()
    assert weights.of(["a"], PLACES).tolist() != alone.of(["a"], PLACES).tolist()
    assert not weights.of(["a", "b", "c"], PLACES).any()
    scorer = Scorer(records[:2], SAID, weights)
    assert np.array_equal(scorer.scores(0).weights, scorer.scores(1).weights)


@pytest.mark.slow
def test_weights_by_keys_that_are_not_tested_keep_the_level() -> None:
    n = 1500
    count = rejections(n, are_tested_together=True, with_third=True)
    assert stats.binom.sf(count - 1, n, ALPHA) > 1e-3
    assert stats.binom.cdf(count, n, ALPHA) > 1e-3


@pytest.mark.slow
def test_weights_by_traffic_of_each_other_do_not() -> None:
    n = 1500
    count = rejections(n, are_tested_together=False, with_third=False)
    assert stats.binom.sf(count - 1, n, ALPHA) < 1e-3
