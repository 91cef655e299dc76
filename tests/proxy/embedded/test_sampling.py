"""Tokens are drawn from the law that the request asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from proxy.embedded.sampling import (
    LogprobsMode,
    Sampler,
    SamplingParams,
    keep_top_p,
    log_softmax,
    top_ids,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOGITS = np.log(np.array([0.05, 0.3, 0.1, 0.25, 0.2, 0.1]))
DRAWS = 20_000


def params(**fields: Any) -> SamplingParams:
    bias = fields.pop("bias", {})
    return SamplingParams(
        bias_ids=np.array(list(bias), dtype=np.int64),
        bias_values=np.array(list(bias.values()), dtype=np.float64),
        **fields,
    )


def sampler(mode: LogprobsMode = LogprobsMode.TEMPERED, choice: int = 0, **fields: Any) -> Sampler:
    return Sampler(params(**({"seed": 7} | fields)), choice=choice, mode=mode)


def draw(chosen: Sampler, times: int, logits: NDArray[np.float64] = LOGITS) -> list[int]:
    return [chosen.draw(logits.copy())[0] for _ in range(times)]


def law(**fields: Any) -> NDArray[np.float64]:
    """The distribution by definition: bias, temperature, top-k, top-p, with full sorts."""
    logits = LOGITS.copy()
    for token, value in fields.get("bias", {}).items():
        logits[token] += -np.inf if value <= -100 else value
    p = np.exp(logits / fields.get("temperature", 1.0))
    p /= p.sum()
    order = sorted(range(len(p)), key=lambda token: (-p[token], token))
    order = order[: fields.get("top_k", 0) or None]
    kept: list[int] = []
    mass = sum(p[token] for token in order)
    for token in order:
        kept.append(token)
        if sum(p[i] for i in kept) >= fields.get("top_p", 1.0) * mass - 1e-12:
            break
    result: NDArray[np.float64] = np.zeros_like(p)
    result[kept] = p[kept] / p[kept].sum()
    return result


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 1.7},
        {"top_k": 3},
        {"top_k": 5, "temperature": 0.7},
        {"top_p": 0.6},
        {"top_p": 0.9, "top_k": 4, "temperature": 1.3},
        {"bias": {0: 2.0, 1: -1.5}},
        {"bias": {1: -100.0}},
        {"bias": {1: 100.0}, "temperature": 100.0},
    ],
    ids=str,
)
def test_draws_follow_the_law(fields: dict[str, Any]) -> None:
    expected = law(**fields) * DRAWS
    observed = np.bincount(draw(sampler(**fields), DRAWS), minlength=len(LOGITS))
    possible = expected > 0
    assert observed[~possible].sum() == 0
    if possible.sum() > 1:
        assert stats.chisquare(observed[possible], expected[possible]).pvalue > 1e-4


def test_the_test_sees_a_wrong_law() -> None:
    observed = np.bincount(draw(sampler(temperature=0.9), DRAWS), minlength=len(LOGITS))
    assert stats.chisquare(observed, law() * DRAWS).pvalue < 1e-6


def test_one_seed_gives_one_answer_and_choices_differ() -> None:
    assert draw(sampler(), 50) == draw(sampler(), 50)
    assert draw(sampler(), 50) != draw(sampler(choice=1), 50)
    assert draw(sampler(seed=None), 50) != draw(sampler(seed=None), 50)
    assert draw(sampler(seed=-3), 5) == draw(sampler(seed=-3), 5)


@pytest.mark.parametrize("fields", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}])
def test_greedy_takes_the_first_of_the_most_probable(fields: dict[str, Any]) -> None:
    logits = np.array([0.0, 2.0, 1.0, 2.0])
    assert draw(sampler(**fields), 20, logits) == [1] * 20


def test_a_ban_holds_against_certainty() -> None:
    logits = np.array([0.0, 900.0, 0.0])
    for fields in ({}, {"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.5}):
        assert 1 not in draw(sampler(bias={1: -100.0}, **fields), 50, logits)


def test_penalties_are_openais() -> None:
    logits = np.array([1.0, 0.5, 0.2])
    chosen = sampler(temperature=0.0, presence_penalty=0.3, frequency_penalty=0.27, logprobs=0)
    counts = np.zeros(3)
    for _ in range(8):
        expected = logits - 0.3 * (counts > 0) - 0.27 * counts
        token, report = chosen.draw(logits.copy())
        assert token == expected.argmax()
        assert report is not None
        assert report.logprob == pytest.approx(log_softmax(expected)[token])
        counts[token] += 1
    assert (counts > 0).all()


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_tempered_reports_come_before_top_k_and_top_p(temperature: float) -> None:
    chosen = sampler(
        temperature=temperature, top_k=1, top_p=0.5, bias={2: 1.0, 5: -100.0}, logprobs=6
    )
    token, report = chosen.draw(LOGITS.copy())
    shifted = LOGITS.copy()
    shifted[2] += 1.0
    shifted[5] = -np.inf
    expected = log_softmax(shifted / (temperature or 1.0))
    assert report is not None
    assert token == expected.argmax()
    assert sorted(report.ids) == [0, 1, 2, 3, 4]  # The banned token is not reported.
    np.testing.assert_allclose(report.values, expected[report.ids])
    assert (np.diff(report.values) <= 0).all()
    assert np.exp(report.values).sum() == pytest.approx(1)


def test_raw_reports_are_the_models_own() -> None:
    chosen = sampler(LogprobsMode.RAW, temperature=0.2, bias={1: -100.0}, logprobs=6)
    token, report = chosen.draw(LOGITS.copy())
    assert report is not None
    np.testing.assert_allclose(report.values, np.sort(LOGITS)[::-1])
    assert report.logprob == pytest.approx(LOGITS[token])


def test_top_ids_and_top_p_agree_with_full_sorts() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        values = rng.integers(0, 40, size=300).astype(np.float64)
        count = int(rng.integers(1, 320))
        order = np.lexsort((np.arange(300), -values))
        np.testing.assert_array_equal(top_ids(values, count), np.sort(order[:count]))
        weights = rng.random(300) ** rng.integers(1, 30)
        top_p = float(rng.uniform(0.01, 0.999))
        ids, kept = keep_top_p(np.arange(300), weights, top_p)
        assert kept.sum() >= top_p * weights.sum() * (1 - 1e-12)
        assert kept[:-1].sum() < top_p * weights.sum()
        assert weights[ids].min() >= np.delete(weights, ids).max(initial=0)
