"""An oracle's answer is a valid p-value, the same for what scores the same, and says little."""

from __future__ import annotations

import hashlib
import hmac
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import special, stats

from tests.support.marked import marked_text, plain_text
from watermark.detection import Detector, Oracle, Verdict
from watermark.detection import oracle as oracle_module
from watermark.detection.oracle import (
    LEVELS,
    coarse_level,
    distinct_pairs,
    noisy_log_pvalue,
)
from watermark.errors import KeysError, SchemeParameterError, TextTooShortError
from watermark.keys import KeyRecord, KeyState, SecretKey
from watermark.keys.secret import ContextKey
from watermark.text import WORDS_V1, WordsUnit

if TYPE_CHECKING:
    from numpy.typing import NDArray


def record_of(seed: int, **fields: Any) -> KeyRecord:
    secret = SecretKey(f"k{seed}", np.random.default_rng(seed).bytes(32))
    given: dict[str, Any] = {"key_id": f"k{seed}", "unit": WORDS_V1, "secret": secret}
    return KeyRecord(**(given | fields))


def oracle_of(record: KeyRecord, **fields: Any) -> Oracle:
    return Oracle(record, WordsUnit(), **fields)


def test_a_marked_text_is_found_and_under_its_own_key_only() -> None:
    record = record_of(0)
    answer = oracle_of(record).ask(marked_text(record, 1))
    assert answer.verdict is Verdict.CARRIES
    assert answer.pvalue_at_most == LEVELS[0]
    assert answer.key_id == "k0"
    assert oracle_of(record_of(1)).ask(marked_text(record, 1)).verdict is Verdict.NOT_FOUND


def test_the_noisy_p_value_is_uniform_over_keys() -> None:
    text, found = plain_text(2), []
    unit = WordsUnit()
    pairs = distinct_pairs(unit.encode(text), 2)
    for seed in range(600):
        record = record_of(seed)
        oracle = oracle_of(record)
        log_pvalue = Detector(record, unit).detect(text).log_pvalue
        noise = noise_of(oracle, pairs)
        found.append(math.exp(noisy_log_pvalue(log_pvalue, noise, 1.0)))
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def noise_of(oracle: Oracle, pairs: NDArray[np.uint32]) -> float:
    """The draw behind an answer, which only the key's holder can make."""
    tag = hmac.digest(oracle._noise_key, oracle_module._digest_of(pairs), hashlib.sha256)
    return oracle_module._normal_of(tag)


def test_noise_that_is_not_paid_for_would_be_seen() -> None:
    """Negative control: without the division the p-values are too small too often."""
    rng = np.random.default_rng(3)
    exact, noise = rng.random(4000), rng.standard_normal(4000)
    paid = [
        math.exp(noisy_log_pvalue(math.log(p), e, 1.0)) for p, e in zip(exact, noise, strict=True)
    ]
    free = special.ndtr(special.ndtri(exact) - noise)
    assert stats.kstest(paid, "uniform").pvalue > 1e-3
    assert stats.kstest(free, "uniform").pvalue < 1e-6


def test_what_scores_the_same_is_answered_the_same() -> None:
    record = record_of(4)
    oracle = oracle_of(record)
    text = marked_text(record, 5)
    disguised = text.upper().replace("W1 ", "W\u200b1  ").replace(" W2", "\n\nW2")
    assert oracle.ask(text) == oracle.ask(text)
    assert oracle.ask(disguised) == oracle.ask(text)
    assert oracle.ask(f"{text} {text}").scored != oracle.ask(text).scored


def test_one_unit_more_draws_anew() -> None:
    oracle = oracle_of(record_of(6))
    names = {oracle.ask(f"{plain_text(7)} one more{place}").scored for place in range(40)}
    assert len(names) == 40


def test_the_order_of_a_text_does_not_draw_anew() -> None:
    """Two halves, exchanged: but for the pairs across the cuts the same is scored."""
    pairs = distinct_pairs(np.array([1, 2, 3, 1, 2, 4, 1, 2], np.uint32), 2)
    assert pairs.tolist() == [[1, 2, 3], [2, 3, 1], [2, 4, 1], [3, 1, 2], [4, 1, 2]]
    assert distinct_pairs(np.array([1, 2], np.uint32), 2).shape == (0, 3)


def test_a_short_text_is_refused_whatever_the_key() -> None:
    for seed in range(3):
        with pytest.raises(TextTooShortError, match="needs 400"):
            oracle_of(record_of(seed)).ask(" ".join(["again and again"] * 500))


def test_a_level_is_never_below_the_p_value() -> None:
    assert coarse_level(0.0) == 1.0
    assert coarse_level(-1e9) == LEVELS[0]
    for level in LEVELS[:-1]:
        assert coarse_level(math.log(level)) == level
        assert coarse_level(math.nextafter(math.log(level), 0.0)) > level


@pytest.mark.parametrize("log_pvalue", [0.0, -1e-300, -1e-17, -0.7, -1e3, -1e7])
def test_extreme_p_values_stay_numbers(log_pvalue: float) -> None:
    for noise in (-8.0, 0.0, 8.0):
        found = noisy_log_pvalue(log_pvalue, noise, 1.0)
        assert -math.inf < found <= 0.0


def test_less_noise_is_refused() -> None:
    for sigma in (0.0, 0.99, math.inf, math.nan):
        with pytest.raises(SchemeParameterError, match="sigma"):
            oracle_of(record_of(0), sigma=sigma)


def test_a_disclosed_key_needs_no_oracle() -> None:
    record = record_of(
        0,
        secret=ContextKey("k0", b"0" * 16),
        state=KeyState.DISCLOSED,
        disclosed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(KeysError, match="disclosed"):
        oracle_of(record)


def test_nothing_of_the_key_or_the_score_is_shown() -> None:
    record = record_of(8)
    oracle = oracle_of(record)
    assert repr(oracle) == "<Oracle key='k8'>"
    answer = oracle.ask(marked_text(record, 9))
    assert not hasattr(answer, "statistic")
    assert answer.pvalue_at_most in LEVELS
