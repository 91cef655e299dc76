"""Weights from the text keep p exact, in closed form and by rank; weights from scores do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tests.support.drive import make_record
from tests.support.foreign import foreign_record
from tests.watermark.detection.test_detector import marked_text, zipf_text
from tests.watermark.detection.test_many import record
from watermark.detection import Detector
from watermark.detection.weighted import detect_weighted, expected_excess, weight_levels
from watermark.errors import SchemeParameterError, TextTooShortError
from watermark.seeding import as_token_ids


def test_the_excess_is_that_of_a_race_by_simulation() -> None:
    rng = np.random.default_rng(0)
    p = np.array([0.5, 0.3, 0.2])
    u = rng.random((200_000, 3))
    winners = np.argmax(np.log(u) / p, axis=1)
    scores = -np.log1p(-u[np.arange(len(u)), winners])
    assert expected_excess(p) == pytest.approx(float(scores.mean()) - 1.0, abs=0.01)
    assert expected_excess(np.array([1.0])) == 0.0
    assert expected_excess(np.array([0.9])) == pytest.approx(expected_excess(np.array([0.9, 0.1])))
    assert expected_excess(np.full(100, 0.01)) > expected_excess(np.full(4, 0.25))


def test_levels_are_few_and_reach_one() -> None:
    weights = weight_levels(np.linspace(0, 3, 500))
    assert len(np.unique(weights)) == 33
    assert weights.max() == 1.0
    assert weight_levels(np.zeros(3)).tolist() == [1.0, 1.0, 1.0]


def p_values(*, cheat: bool) -> list[float]:
    ids = as_token_ids(zipf_text(160, 4, 60))
    weights = np.random.default_rng(0).integers(0, 5, len(ids)) / 4
    found = []
    for seed in range(300):
        used = weights
        if cheat:  # weights that look at the scores under the key
            halves = [Detector(record(seed)).detect(part).effect for part in (ids[:80], ids[80:])]
            used = np.repeat(np.array([1.0, 0.1] if halves[0] > halves[1] else [0.1, 1.0]), 80)
        found.append(detect_weighted(record(seed), [ids], [used]).log_pvalue)
    return [math.exp(log) for log in found]


def test_weights_of_the_text_keep_p_uniform_and_weights_of_the_key_do_not() -> None:
    assert stats.kstest(p_values(cheat=False), "uniform").pvalue > 0.01
    assert stats.kstest(p_values(cheat=True), "uniform").pvalue < 1e-6


def test_ranks_agree_with_the_closed_form_and_equal_weights_with_the_detector() -> None:
    replies = [as_token_ids(zipf_text(120, seed, 60)) for seed in (1, 2)]
    weights = [np.random.default_rng(s).integers(0, 5, 120) / 4 for s in (1, 2)]
    for seed in range(5):
        found = detect_weighted(record(seed), replies, weights, decoys=2000)
        assert found.decoys is not None
        p = math.exp(found.log_pvalue)
        spread = 5 * math.sqrt(p * (1 - p) / 2000) + 1e-3
        assert abs(math.exp(found.decoys.log_pvalue) - p) < spread
        even = detect_weighted(record(seed), replies, [np.ones(120)] * 2)
        plain = Detector(record(seed)).detect_pooled(replies)
        assert even.log_pvalue == pytest.approx(plain.log_pvalue, rel=1e-9)
        assert (even.n_scored, even.n_repeated) == (plain.n_scored, plain.n_repeated)
        assert even.effect == pytest.approx(plain.effect)


def test_weights_find_a_mark_that_noise_hides() -> None:
    """Half of the text is free of choice: positions that say nothing."""
    marked = as_token_ids(marked_text(0, 60))
    plain = as_token_ids(zipf_text(400, 9, 2000) + 5000)
    text = np.concatenate([marked, plain])
    weights = np.concatenate([np.ones(60), np.full(400, 0.1)])
    key = make_record(0, width=2)
    weighted = detect_weighted(key, [text], [weights])
    assert weighted.log10_pvalue < Detector(key).detect(text).log10_pvalue - 2
    assert detect_weighted(key, [text], [weights], exclude=[text]).log_pvalue == 0.0


def test_every_position_is_counted_once_as_what_it_is() -> None:
    """Scored, repeated, excluded, or of no weight; the first three as without weights."""
    key, prompt = record(0), as_token_ids(zipf_text(60, 3, 30))
    replies = [as_token_ids(zipf_text(120, seed, 30)) for seed in (1, 2)]
    plain = Detector(key).detect_pooled(replies, exclude=[prompt])
    even = detect_weighted(key, replies, [np.ones(120)] * 2, exclude=[prompt])
    counts = (plain.n_scored, plain.n_repeated, plain.n_excluded)
    assert (even.n_scored, even.n_repeated, even.n_excluded) == counts
    assert min(counts) > 0
    some = [np.arange(120.0) % 3, np.ones(120)]
    found = detect_weighted(key, replies, some, exclude=[prompt])
    assert (found.n_repeated, found.n_excluded) == counts[1:]
    assert 0 < found.n_scored < plain.n_scored


def test_what_cannot_be_weighted_is_refused() -> None:
    ids = as_token_ids([1, 2, 3, 4])
    for key in (foreign_record("vllm-gumbel", [7]), record(0, share=9000)):
        with pytest.raises(SchemeParameterError, match="weights serve keys"):
            detect_weighted(key, [ids], [np.ones(4)])
    with pytest.raises(SchemeParameterError, match="one weight a unit"):
        detect_weighted(record(0), [ids], [np.ones(3)])
    with pytest.raises(TextTooShortError):
        detect_weighted(record(0), [ids[:2]], [np.ones(2)])
