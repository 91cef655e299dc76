"""Averaged over keys every candidate wins with its own probability, for every rho."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats

from watermark.errors import SchemeParameterError
from watermark.schemes import CopulaSampler, scores_from_levels
from watermark.seeding import levels_to_uniforms

P = np.array([0.6, 0.25, 0.15])
RHOS = (0.0, 0.5, 0.9, 1.0)
SIGNIFICANCE = 1e-4


class QuantileNoise(np.random.Generator):
    """Private randomness that gives out chosen normals, so that a grid can be enumerated."""

    def __init__(self, normals: np.ndarray) -> None:
        super().__init__(np.random.PCG64(0))
        self.normals = normals

    def standard_normal(self, *_args: object, **_kwargs: object) -> np.ndarray:  # type: ignore[override]
        return self.normals.copy()


def choose_all(uniforms: np.ndarray, etas: np.ndarray, rho: float, p: np.ndarray = P) -> np.ndarray:
    """Return the share of wins over paired rows of uniforms and normals."""
    sampler = CopulaSampler(rho)
    wins = np.zeros(len(p) + 1)
    for row, noise in zip(uniforms, etas, strict=True):
        wins[sampler.choose(p, row, QuantileNoise(noise))] += 1
    return wins / len(uniforms)


def midpoints(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


@pytest.mark.parametrize("p", [P, P[:2], np.array([1.0, 1.0, 2.0])])
def test_plain_gumbel_max_is_exact_on_a_grid_of_levels(p: np.ndarray) -> None:
    """rho = 1: only u matters, so a midpoint grid over the cube of u's is the whole law.

    A boundary between winners is monotone in every u: it cuts at most n^(d-1) * d of the n^d
    cells, which bounds the error by d / n.
    """
    n, d = (16, 3) if len(p) == 3 else (60, 2)
    grid = np.array(list(itertools.product(midpoints(n), repeat=d)))
    wins = choose_all(grid, np.zeros_like(grid), 1.0, p)
    assert abs(wins[:d] - p / p.sum()).max() <= d / n / 2
    assert wins[d] == 0


def win_rate(rho: float, *, is_shared: bool) -> float:
    """Return P(the candidate of .6 beats the one of .4), by quadrature.

    Own noise: the law of one time by midpoints over (u, eta), then the race of two such times.
    Shared noise: the race for every eta, then the mean.
    """
    n = 300
    u, p = midpoints(n), np.array([0.6, 0.4])
    sampler = CopulaSampler(rho)
    etas = special.ndtri(midpoints(n))
    times = [np.sort(sampler._times(u, QuantileNoise(np.full(n, eta)))) for eta in etas]
    if not is_shared:
        times = [np.sort(np.concatenate(times))]
    later = [
        1 - np.searchsorted(one, one * p[1] / p[0], side="right").mean() / len(one) for one in times
    ]
    return float(np.mean(later))


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_the_law_by_quadrature(rho: float) -> None:
    """Midpoint sums of regions monotone in each coordinate: off by at most 1/n a coordinate."""
    assert abs(win_rate(rho, is_shared=False) - 0.6) <= 2 / 300


def test_one_shared_eta_fails_the_quadrature() -> None:
    """Negative control: the same sum with one noise for both candidates."""
    assert win_rate(0.5, is_shared=True) - 0.6 > 10 * 2 / 300


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9, 1.0])
def test_the_mixed_uniform_is_uniform(rho: float) -> None:
    """The lemma: Phi(rho Phi^-1(u) + sqrt(1 - rho^2) eta) is uniform; here -log of it, Exp(1)."""
    n = 400
    grid = np.array(list(itertools.product(midpoints(n), repeat=2)))
    times = CopulaSampler(rho)._times(grid[:, 0], QuantileNoise(special.ndtri(grid[:, 1])))
    for quantile in (0.01, 0.1, 0.5, 0.9, 0.99):
        assert abs((np.exp(-times) <= quantile).mean() - quantile) <= 2 / n


def simulate(
    rho: float, n: int, *, rest: float = 0.0, p: np.ndarray = P, seed: int = 0
) -> np.ndarray:
    """Return wins over n keys, "rest" last."""
    rng = np.random.default_rng([seed, int(rho * 10)])
    sampler = CopulaSampler(rho)
    uniforms = rng.random((n, len(p)))
    counts = np.zeros(len(p) + 1)
    for row in uniforms:
        counts[sampler.choose(p, row, rng, rest=rest)] += 1
    return counts


@pytest.mark.parametrize("rho", RHOS)
def test_every_candidate_wins_with_its_probability(rho: float) -> None:
    counts = simulate(rho, 10_000)
    assert counts[-1] == 0
    assert stats.chisquare(counts[:-1], 10_000 * P).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("rho", RHOS)
def test_the_rest_wins_with_the_missing_mass(rho: float) -> None:
    counts = simulate(rho, 10_000, rest=0.4, p=P[1:])
    expected = np.array([0.25, 0.15, 0.4]) / 0.8
    assert stats.chisquare(counts, 10_000 * expected).pvalue > SIGNIFICANCE


def test_a_list_cut_without_its_rest_has_another_law() -> None:
    """Negative control: the same test, the rest left out."""
    counts = simulate(0.9, 10_000, rest=0.0, p=P[:2])
    assert stats.chisquare(counts[:2] + 0.5, 10_001 * np.array([0.6, 0.4])).pvalue < SIGNIFICANCE


def test_one_eta_for_all_candidates_has_another_law() -> None:
    """Negative control: a noise that candidates share favours the likely one."""
    n, rho = 8000, 0.5
    rng = np.random.default_rng(0)
    uniforms = rng.random((n, 3))
    shared = np.repeat(rng.standard_normal((n, 1)), 3, axis=1)
    own = rng.standard_normal((n, 3))
    wins = choose_all(uniforms, shared, rho)[:3] * n
    honest = choose_all(uniforms, own, rho)[:3] * n
    assert stats.chisquare(honest, n * P).pvalue > SIGNIFICANCE
    assert stats.chisquare(wins, n * P).pvalue < SIGNIFICANCE
    assert wins[0] / n > 0.61


def test_the_score_of_the_winner_grows_with_rho() -> None:
    rng = np.random.default_rng(1)
    uniforms = rng.random((6000, 3))
    means = []
    for rho in RHOS:
        sampler = CopulaSampler(rho)
        winners = [sampler.choose(P, row, rng) for row in uniforms]
        means.append(-np.log1p(-uniforms[np.arange(6000), winners]).mean())
    assert means[0] == pytest.approx(1, abs=5 / math.sqrt(6000))
    assert means == sorted(means)
    assert means[-1] > 1.3


def test_without_uniforms_the_choice_is_private_and_exact() -> None:
    sampler, rng = CopulaSampler(1.0), np.random.default_rng(2)
    counts = np.bincount([sampler.choose(P, None, rng, rest=0.25) for _ in range(10_000)])
    expected = np.append(P, 0.25) / 1.25
    assert stats.chisquare(counts, 10_000 * expected).pvalue > SIGNIFICANCE


def test_what_has_no_mass_never_wins() -> None:
    rng = np.random.default_rng(3)
    for rho in RHOS:
        for _ in range(200):
            p = np.array([0.0, 1e-320, 1.0, 0.0])
            assert CopulaSampler(rho).choose(p, rng.random(4), rng) in (1, 2)
    assert CopulaSampler(0.9).choose(np.array([0.0]), np.array([0.5]), rng, rest=1.0) == 1
    assert CopulaSampler(0.9).choose(np.zeros(0), np.zeros(0), rng, rest=1.0) == 0


@pytest.mark.parametrize("extreme", [2.0**-53, 1 - 2.0**-53])
@pytest.mark.parametrize("rho", RHOS)
def test_the_extreme_uniforms_choose_like_any(extreme: float, rho: float) -> None:
    times = CopulaSampler(rho)._times(np.array([extreme, 0.5]), np.random.default_rng(0))
    assert np.isfinite(times).all()
    assert (times > 0).all()


@pytest.mark.parametrize(
    ("p", "uniforms", "rest"),
    [
        ([-0.1, 1.0], [0.5, 0.5], 0.0),
        ([math.nan, 1.0], [0.5, 0.5], 0.0),
        ([math.inf, 1.0], [0.5, 0.5], 0.0),
        ([0.0, 0.0], [0.5, 0.5], 0.0),
        ([0.5, 0.5], [0.5], 0.0),
        ([0.5, 0.5], [0.5, 0.5, 0.5], 0.0),
        ([0.5, 0.5], [0.5, 0.5], -0.1),
        ([0.5, 0.5], [0.5, 0.5], math.nan),
    ],
)
def test_what_is_no_distribution_is_refused(
    p: list[float], uniforms: list[float], rest: float
) -> None:
    with pytest.raises(SchemeParameterError):
        CopulaSampler(0.9).choose(
            np.array(p), np.array(uniforms), np.random.default_rng(0), rest=rest
        )


@pytest.mark.parametrize("rho", [-0.1, 1.1, math.nan])
def test_a_correlation_out_of_range_is_refused(rho: float) -> None:
    with pytest.raises(SchemeParameterError):
        CopulaSampler(rho)


def test_scores_are_minus_log_of_one_minus_u() -> None:
    levels = np.random.default_rng(4).integers(0, 2**52, 10_000, dtype=np.uint64)
    scores = scores_from_levels(levels)
    assert scores == pytest.approx(-np.log1p(-levels_to_uniforms(levels)), rel=1e-12)


def test_scores_are_exact_at_the_extremes() -> None:
    low, high = scores_from_levels(np.array([0, 2**52 - 1], np.uint64)).tolist()
    assert low == pytest.approx(2.0**-53, rel=1e-15)
    assert high == pytest.approx(53 * math.log(2), rel=1e-15)


def test_scores_leave_their_input_alone() -> None:
    levels = np.array([1, 2, 3], np.uint64)
    scores_from_levels(levels)
    assert levels.tolist() == [1, 2, 3]
