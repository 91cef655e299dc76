"""SGLang's mark: its own sampler and detector where they are, its hash by known values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.support.engines import EngineMissingError, sglang_detector
from tests.support.foreign import VOCAB, foreign_detector, foreign_record, sglang_text
from watermark.schemes import reader_of
from watermark.schemes.sglang_gumbel import MAX_CONTEXTS
from watermark.seeding import as_token_ids

SIGNIFICANCE = 1e-4
KEYS = (0x1, 0xDEADBEEF, 0xFEDCBA9876543210)


@pytest.fixture(scope="module")
def engine() -> Any:
    try:
        return sglang_detector()
    except (EngineMissingError, ModuleNotFoundError) as missing:
        pytest.skip(str(missing))


def test_the_hash_is_murmurs() -> None:
    """MurmurHash3 x86 32, seed 0, of the bytes 01 00 00 00 and of four zero words."""
    reader = reader_of(foreign_record("sglang-gumbel", [0], width=1))
    assert reader.contexts(as_token_ids([0])).tolist() == [0x2362F9DE]  # four zero bytes
    assert reader.contexts(as_token_ids([0x64636261])).tolist() == [0x43ED676A]  # "abcd"


def test_the_first_contexts_of_a_reply_are_scored() -> None:
    detector = foreign_detector("sglang-gumbel", [5], width=1)
    ids = np.arange(MAX_CONTEXTS + 100)
    assert detector.detect(ids).n_scored == MAX_CONTEXTS
    assert detector.detect_pooled([ids[:3000], ids[3000:]]).n_scored == len(ids) - 2


@pytest.mark.parametrize("n_keys", [1, 2])
def test_p_is_uniform_over_keys(n_keys: int) -> None:
    ids = np.random.default_rng(0).zipf(1.3, 150) % 1000
    rng = np.random.default_rng(1)
    keys = rng.integers(2**64, size=(300, n_keys), dtype=np.uint64)
    p = [
        math.exp(foreign_detector("sglang-gumbel", pair.tolist()).detect(ids).log_pvalue)
        for pair in keys
    ]
    assert stats.kstest(p, "uniform").pvalue > SIGNIFICANCE


@pytest.mark.parametrize("width", [1, 4, 64])
@pytest.mark.parametrize("key", KEYS)
def test_scores_are_the_engines(engine: Any, key: int, width: int) -> None:
    text = np.random.default_rng(width).integers(VOCAB, size=150).tolist() * 2
    theirs = engine.WatermarkDetector(f"{key:x}", context_window=width).detect_tokens(text).combined
    ours = foreign_detector("sglang-gumbel", [key], width=width).detect(text)
    assert ours.n_scored == theirs.num_contexts
    assert ours.statistic == pytest.approx(theirs.score, rel=1e-12)
    assert ours.log_pvalue == pytest.approx(theirs.log_p_value, rel=1e-9)


@pytest.mark.parametrize("mixing", [0.5, 0.9])
@pytest.mark.parametrize("keys", [KEYS[:1], KEYS[1:]])
def test_its_own_text_has_its_own_p(engine: Any, keys: tuple[int, ...], mixing: float) -> None:
    text = sglang_text(keys, 200, mixing_probability=mixing)
    second = f"{keys[1]:x}" if len(keys) > 1 else None
    theirs = engine.WatermarkDetector(
        f"{keys[0]:x}", key_b=second, mixing_probability=mixing
    ).detect_tokens(text)
    ours = foreign_detector("sglang-gumbel", keys, mixing_probability=mixing).detect(text)
    assert ours.log10_pvalue < -20
    assert ours.n_scored == theirs.combined.num_contexts
    assert ours.log_pvalue == pytest.approx(theirs.combined.log_p_value, rel=1e-9)
    wrong = foreign_detector("sglang-gumbel", [key + 1 for key in keys]).detect(text)
    assert wrong.log10_pvalue > -4


def test_contexts_of_one_hash_share_their_draws() -> None:
    """Two contexts that collide in 32 bits are one: what is independent is the hash."""
    reader = reader_of(foreign_record("sglang-gumbel", [9], width=2))
    rng = np.random.default_rng(0)
    contexts = rng.integers(2**32 - 1, size=(200_000, 2), dtype=np.uint32)
    hashes = np.concatenate([reader.contexts(pair) for pair in contexts[:2000]])
    order = np.argsort(hashes)
    assert len(np.unique(hashes)) == len(order)  # 2,000 do not collide; the rule is in the identity
    ids = as_token_ids([1, 2, 3, 1, 2, 3])
    assert len(reader.read(reader.positions(ids))) == 3
