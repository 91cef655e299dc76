"""vLLM's mark: its own golden vectors, and its own samplers and detectors where they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.support.engines import EngineMissingError, vllm_gumbel
from tests.support.foreign import VOCAB, foreign_detector, foreign_record, vllm_text
from watermark.schemes import reader_of
from watermark.schemes.philox import PhiloxPRF
from watermark.seeding import as_token_ids

SIGNIFICANCE = 1e-4
KEYS = (0, 42, 2**64 - 1, 0x0123456789ABCDEF)


@pytest.fixture(scope="module")
def engine() -> Any:
    try:
        return vllm_gumbel()
    except (EngineMissingError, ModuleNotFoundError) as missing:
        pytest.skip(str(missing))


def uniforms(key: int, context: list[int], tokens: range) -> np.ndarray:
    prf = PhiloxPRF(key)
    states = prf.states((np.array([context]) & 0xFFFFFFFF).astype(np.uint32))
    outputs = prf.outputs(states, np.array(tokens, np.uint32))
    return (((outputs >> np.uint32(8)) + 1.0) / (2**24 + 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ([-1, -1, -1, -1], [0.97728604, 0.00663197, 0.88184172, 0.49961361]),
        ([1, 2, 3, 4], [0.53610724, 0.69408274, 0.22023027, 0.78776413]),
    ],
)
def test_golden_vectors(context: list[int], expected: list[float]) -> None:
    assert uniforms(42, context, range(4)) == pytest.approx(expected, abs=1e-8)


def test_every_token_of_a_reply_is_scored_once_a_context() -> None:
    detector = foreign_detector("vllm-gumbel", [42])
    assert detector.detect([7]).n_scored == 1
    result = detector.detect([1] * 20)
    assert (result.n_tokens, result.n_scored) == (20, 5)  # 0 to 4 ones before
    assert result.law.name == "gamma"
    assert detector.detect_pooled([[7], [7], [8]]).n_scored == 2


@pytest.mark.parametrize("parameters", [{}, {"algorithm": "dual_key_gumbel", "alpha": 0.1}])
def test_p_is_uniform_over_keys(parameters: Any) -> None:
    ids = np.random.default_rng(0).zipf(1.3, 150) % 1000
    rng = np.random.default_rng(1)
    keys = rng.integers(2**64, size=250, dtype=np.uint64)
    p = [
        math.exp(foreign_detector("vllm-gumbel", [int(key)], **parameters).detect(ids).log_pvalue)
        for key in keys
    ]
    assert stats.kstest(p, "uniform").pvalue > SIGNIFICANCE


def test_coarse_uniforms_stay_below_the_gamma_tail() -> None:
    """The grid's own law, enumerated on a coarse grid: never above Gamma by more than proven."""
    grid = 2**6
    levels = np.arange(1, grid + 1) / grid
    scores = -np.log(np.where(levels <= 0.5, levels, levels * grid / (grid + 1)))
    pairs = np.sort((scores[:, None] + scores[None, :]).ravel())[::-1]
    tail = np.arange(1, len(pairs) + 1) / len(pairs)
    bound = stats.gamma(2).sf(pairs - 2 * math.log1p(1 / grid))
    assert (tail <= bound * (1 + 1e-12)).all()


@pytest.mark.parametrize("width", [1, 4, 5, 9])
@pytest.mark.parametrize("key", KEYS)
def test_scores_are_the_engines(engine: Any, key: int, width: int) -> None:
    rng = np.random.default_rng(width)
    text = rng.integers(VOCAB, size=120).tolist() * 2
    theirs = engine.GumbelWatermarkDetector(key, width).detect(text)
    ours = foreign_detector("vllm-gumbel", [key], width=width).detect(text)
    assert ours.n_scored == theirs.num_scored_tokens
    assert ours.statistic == pytest.approx(theirs.score, rel=1e-12)
    assert ours.log_pvalue == pytest.approx(math.log(theirs.p_value), rel=1e-9, abs=1e-12)


def test_its_own_text_has_its_own_p(engine: Any) -> None:
    text = vllm_text(42, 200)
    theirs = engine.GumbelWatermarkDetector(42).detect(text)
    ours = foreign_detector("vllm-gumbel", [42]).detect(text)
    assert ours.log10_pvalue < -20
    assert ours.log_pvalue == pytest.approx(math.log(theirs.p_value), rel=1e-9)
    assert foreign_detector("vllm-gumbel", [43]).detect(text).log10_pvalue > -4


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_dual_key_text_has_its_own_statistic_and_an_exact_p(engine: Any, alpha: float) -> None:
    text = vllm_text(42, 120, alpha=alpha)
    theirs = engine.DualKeyGumbelWatermarkDetector(42, alpha=alpha).detect(text)
    detector = foreign_detector("vllm-gumbel", [42], algorithm="dual_key_gumbel", alpha=alpha)
    ours = detector.detect(text)
    assert ours.law.name == "hypoexponential"
    assert ours.statistic == pytest.approx(theirs.score, rel=1e-12)
    assert ours.log10_pvalue < -6
    if alpha == 0.5:
        assert ours.log_pvalue == pytest.approx(math.log(theirs.p_value), rel=1e-9)
    else:  # theirs is fitted by moments, and too small in the tail
        assert ours.log_pvalue > math.log(theirs.p_value) + math.log(1.1)


def test_prompts_are_excluded_by_context() -> None:
    reader = reader_of(foreign_record("vllm-gumbel", [1], width=2))
    ids = as_token_ids([1, 2, 3, 4])
    excluded = reader.contexts(as_token_ids([9, 2, 3, 7]))
    assert len(reader.read(reader.positions(ids))) == 4
    assert len(reader.read(reader.positions(ids), excluded=excluded)) == 3  # not the 4 after 2, 3
