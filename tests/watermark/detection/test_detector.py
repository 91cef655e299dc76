"""Exact p-values whatever the text repeats; the mark is found under its own key only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.support.drive import make_record, make_reply
from watermark.detection import Detector
from watermark.detection.detector import correct_family
from watermark.detection.result import FEWEST_SHOWN, level_of
from watermark.errors import (
    TextEncodingError,
    TextTooShortError,
    TokenIdError,
    UnitMismatchError,
)
from watermark.keys import LABEL_CONTEXT
from watermark.schemes import CopulaSampler, scores_from_levels
from watermark.seeding import (
    ContextPRF,
    KeyedUniforms,
    as_token_ids,
    context_windows,
    is_account_channel,
    uniform_levels,
)
from watermark.stats import gamma_log_sf
from watermark.text import WordsUnit

SIGNIFICANCE = 1e-4


def zipf_text(n: int, seed: int = 0, vocab: int = 50) -> np.ndarray:
    """Return ids with Zipf frequencies: contexts and pairs repeat a lot."""
    weights = 1 / np.arange(1, vocab + 1)
    return np.random.default_rng(seed).choice(vocab, n, p=weights / weights.sum())


def slow_statistic(record: Any, replies: list[list[int]]) -> tuple[float, int]:
    """Return the sum of scores and their number, position by position, with sets."""
    keyed = KeyedUniforms(record)
    width = record.context_width
    pairs: set[tuple[tuple[int, ...], int]] = set()
    total = 0.0
    for ids in replies:
        seen: set[tuple[int, ...]] = set()
        for i in range(width, len(ids)):
            context = tuple(ids[i - width : i])
            stream = keyed.at(context)
            if stream is None or context in seen:
                continue
            seen.add(context)
            if (context, ids[i]) not in pairs:
                pairs.add((context, ids[i]))
                total += float(scores_from_levels(stream.levels(as_token_ids([ids[i]])))[0])
    return total, len(pairs)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=40), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from([0, 30_000]),
)
def test_the_statistic_is_the_definitions(replies: list[list[int]], width: int, share: int) -> None:
    record = make_record(3, width=width, account_share_q16=share)
    if all(len(ids) <= width for ids in replies):
        with pytest.raises(TextTooShortError):
            Detector(record).detect_pooled(replies)
        return
    result = Detector(record).detect_pooled(replies)
    total, n = slow_statistic(record, replies)
    assert result.n_scored == n
    if n >= FEWEST_SHOWN:
        assert result.statistic == pytest.approx(total, rel=1e-12)
        assert result.log_pvalue == gamma_log_sf(result.statistic, n) == result.log_pvalue_family
    else:
        assert math.isnan(result.statistic) == (n > 0)
        assert result.log_pvalue == level_of(gamma_log_sf(total, n)) == result.log_pvalue_family
    assert result.n_tokens == sum(map(len, replies))
    positions = sum(max(0, len(ids) - width) for ids in replies)
    assert result.n_scored + result.n_repeated == positions


@pytest.mark.parametrize("replies", [[zipf_text(300)], [zipf_text(120, i) for i in range(4)]])
def test_p_is_uniform_over_keys(replies: list[np.ndarray]) -> None:
    logs = [Detector(make_record(seed)).detect_pooled(replies).log_pvalue for seed in range(2000)]
    p = np.exp(logs)
    assert stats.kstest(p, "uniform").pvalue > SIGNIFICANCE
    assert abs(p.mean() - 0.5) < 4 * math.sqrt(1 / 12 / 2000)
    for alpha in (0.1, 0.01):
        assert (p <= alpha).mean() <= alpha + 4 * math.sqrt(alpha / 2000)


def test_counting_repeats_again_is_not_calibrated() -> None:
    """Negative control: every position scored, on templated text, under 500 keys."""
    ids = np.tile(zipf_text(40), 20)
    contexts, tokens = context_windows(as_token_ids(ids), 1), as_token_ids(ids)[1:]
    naive, exact = [], []
    for seed in range(500):
        record = make_record(seed)
        streams, _ = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16)).evaluate(contexts)
        scores = scores_from_levels(uniform_levels(streams, tokens))
        naive.append(gamma_log_sf(float(scores.sum()), len(scores)))
        exact.append(Detector(record).detect(ids).log_pvalue)
    assert stats.kstest(np.exp(exact), "uniform").pvalue > SIGNIFICANCE
    assert stats.kstest(np.exp(naive), "uniform").pvalue < SIGNIFICANCE
    assert (np.array(naive) < math.log(0.01)).mean() > 0.1


@pytest.mark.parametrize("times", [2, 1000])
def test_repeated_text_adds_nothing(times: int) -> None:
    detector = Detector(make_record(0, width=2))
    ids = zipf_text(200).tolist()
    joined = [*ids, *ids[:2]]  # the seam's contexts are then the text's own
    once = detector.detect(joined)
    again = detector.detect(ids * times + ids[:2])
    assert again.n_scored == once.n_scored
    assert again.statistic == pytest.approx(once.statistic, rel=1e-12)
    assert again.log_pvalue == pytest.approx(once.log_pvalue, rel=1e-12)
    pooled = detector.detect_pooled([joined] * times)
    assert pooled.n_scored == once.n_scored
    assert pooled.log_pvalue == pytest.approx(once.log_pvalue, rel=1e-12)


def test_pools_count_a_pair_once_but_other_tokens_of_its_context_again() -> None:
    detector = Detector(make_record(0))
    assert detector.detect([1, 2, 1, 3]).n_scored == 2  # (1)->2, (2)->1; (1)->3 is a second
    assert detector.detect_pooled([[1, 2], [1, 3], [1, 2]]).n_scored == 2
    assert detector.detect_pooled([[1, 2], [], [5]]).n_scored == 1


def test_the_order_of_a_pool_does_not_matter_to_the_sum() -> None:
    detector = Detector(make_record(0))
    replies = [zipf_text(60, i).tolist() for i in range(5)]
    one, two = detector.detect_pooled(replies), detector.detect_pooled(replies[::-1])
    assert one.statistic == pytest.approx(two.statistic, rel=1e-12)
    assert one.n_scored == two.n_scored


def marked_text(seed: int, n: int, *, width: int = 2, vocab: int = 40) -> list[int]:
    """Return text that a copula sampler chose, from a Zipf law."""
    reply = make_reply(seed, max_tokens=None, width=width)
    sampler = CopulaSampler(0.9)
    tokens = np.arange(vocab, dtype=np.uint32)
    p = 1 / np.arange(1.0, vocab + 1)
    for _ in range(n):
        stream = reply.stream()
        uniforms = None if stream is None else stream.uniforms(tokens)
        token = sampler.choose(p, uniforms, reply.rng)
        reply.spend(tuple(reply.tokens), (token,))
        reply.extend((token,))
    return reply.tokens


def test_marked_text_is_found_under_its_key_and_no_other() -> None:
    ids = marked_text(0, 250)
    own = Detector(make_record(0, width=2)).detect(ids)
    assert own.log10_pvalue < -20
    assert own.effect > 0.7
    others = [Detector(make_record(seed, width=2)).detect(ids) for seed in range(1, 301)]
    p = np.exp([one.log_pvalue for one in others])
    assert stats.kstest(p, "uniform").pvalue > SIGNIFICANCE


def test_the_account_channel_is_left_out_and_the_rest_exact() -> None:
    ids = zipf_text(300, vocab=300)
    logs, scored = [], []
    for seed in range(500):
        record = make_record(seed, account_share_q16=32_768)
        result = Detector(record).detect(ids)
        logs.append(result.log_pvalue)
        scored.append(result.n_scored)
    assert stats.kstest(np.exp(logs), "uniform").pvalue > SIGNIFICANCE
    whole = Detector(make_record(0)).detect(ids).n_scored
    assert np.mean(scored) == pytest.approx(whole / 2, rel=0.05)


def test_a_code_carried_by_the_account_channel_does_not_move_the_epoch_test() -> None:
    record = make_record(0, account_share_q16=65_536)
    result = Detector(record).detect(zipf_text(100))
    assert (result.n_scored, result.statistic, result.log_pvalue) == (0, 0.0, 0.0)
    _, routes = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16)).evaluate(
        context_windows(as_token_ids(zipf_text(100)), 1)
    )
    assert is_account_channel(routes, 65_536).all()


def test_a_family_is_corrected() -> None:
    detector = Detector(make_record(0, width=2))
    texts = [marked_text(0, 40), zipf_text(50).tolist(), zipf_text(60, 1).tolist()]
    results = detector.detect_each(texts)
    alone = [detector.detect(text) for text in texts]
    assert [one.log_pvalue for one in results] == [one.log_pvalue for one in alone]
    assert results[0].log_pvalue_family == pytest.approx(alone[0].log_pvalue + math.log(3))
    assert all(one.log_pvalue <= one.log_pvalue_family <= 0 for one in results)
    assert correct_family([]) == []
    assert detector.detect_each([]) == []


@pytest.mark.parametrize("replies", [[], [[]], [[1]], [[1, 2]], [[1], [2, 3], []]])
def test_what_is_too_short_is_said(replies: list[list[int]]) -> None:
    with pytest.raises(TextTooShortError, match="at least 3"):
        Detector(make_record(0, width=2)).detect_pooled(replies)


def test_characters_are_cut_by_the_keys_unit() -> None:
    detector = Detector(make_record(0), WordsUnit())
    text = "The quick brown fox jumps over the lazy dog."
    assert detector.detect(text).n_tokens == 10
    assert detector.detect(text) == detector.detect(WordsUnit().encode(text))
    with pytest.raises(TextEncodingError):
        detector.detect("half \ud800 pair")
    with pytest.raises(TextTooShortError):
        detector.detect("")


def test_another_unit_is_refused() -> None:
    class OtherUnit:
        unit_id = "tokenizer:sha256:" + "0" * 64

        def encode(self, text: str) -> np.ndarray:
            raise AssertionError(text)

        def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
            raise AssertionError(text)

    with pytest.raises(UnitMismatchError):
        Detector(make_record(0), OtherUnit())
    with pytest.raises(UnitMismatchError):
        Detector(make_record(0)).detect("words")


def test_ids_out_of_range_are_refused() -> None:
    with pytest.raises(TokenIdError):
        Detector(make_record(0)).detect([1, 2, 2**32 - 1])


def test_the_repr_shows_the_key_id() -> None:
    assert repr(Detector(make_record(0))) == "<Detector key='k' unit=words/v1>"
