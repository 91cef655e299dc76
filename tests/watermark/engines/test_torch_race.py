"""The race on tensors: numpy's seeding bit for bit, the copula sampler's law, sampling's cuts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.support.devices import on_every_device
from tests.support.drive import make_record
from watermark.schemes import CopulaSampler
from watermark.seeding import (
    KeyedUniforms,
    as_token_ids,
    flip_levels,
    levels_to_uniforms,
)
from watermark.seeding import uniform_levels as numpy_levels

torch = pytest.importorskip("torch")
race = pytest.importorskip("watermark.engines.torch_race")

SIGNIFICANCE = 1e-4
WORD = st.integers(0, 2**64 - 1)


@on_every_device
@given(st.lists(WORD, min_size=1, max_size=20), st.integers(0, 2**32 - 2))
def test_levels_are_numpys_bit_for_bit(device: str, streams: list[int], token: int) -> None:
    own = np.array(streams, np.uint64)
    tokens = np.full(len(own), token, np.uint32)
    found = race.uniform_levels(
        torch.from_numpy(own.view(np.int64)).to(device), torch.tensor(token, device=device)
    )
    assert found.cpu().numpy().astype(np.uint64).tolist() == numpy_levels(own, tokens).tolist()


@on_every_device
def test_uniforms_are_numpys_bit_for_bit_over_a_vocabulary(device: str) -> None:
    streams = np.random.default_rng(0).integers(2**64, size=7, dtype=np.uint64)
    flipped = np.arange(7) % 2 == 0
    tokens = np.arange(200_000, dtype=np.uint32)
    found = race.uniforms(
        torch.from_numpy(streams.view(np.int64))[:, None].to(device),
        torch.arange(200_000, device=device),
        torch.from_numpy(flipped)[:, None].to(device),
    )
    assert found.device.type == device
    found = found.cpu().numpy()
    for row, stream in enumerate(streams):
        levels = numpy_levels(stream, tokens)
        levels = flip_levels(levels) if flipped[row] else levels
        assert (found[row] == levels_to_uniforms(levels)).all()


def winners(scores: np.ndarray, rho: float, n: int, device: str = "cpu") -> np.ndarray:
    """Return the winners of n keys at one context and scores."""
    found = [
        KeyedUniforms(make_record(seed)).at_each(as_token_ids([3]).reshape(1, 1))
        for seed in range(n)
    ]
    streams = type(found[0])(
        np.concatenate([one.streams for one in found]),
        np.zeros(n, np.bool_),
        np.ones(n, np.bool_),
    )
    generator = torch.Generator(device).manual_seed(0)
    rows = torch.tensor(scores, dtype=torch.float32, device=device).expand(n, -1)
    chosen: np.ndarray = race.choose(rows, streams, rho, generator).cpu().numpy()
    return chosen


@on_every_device
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 1.0])
def test_winners_over_keys_have_the_law_of_the_scores(device: str, rho: float) -> None:
    masses = np.array([0.5, 0.0, 0.3, 0.15, 0.05])
    with np.errstate(divide="ignore"):
        chosen = winners(np.log(masses), rho, 3000, device)
    counts = np.bincount(chosen, minlength=5)
    assert counts[1] == 0
    assert stats.chisquare(counts[masses > 0], masses[masses > 0] * 3000).pvalue > SIGNIFICANCE


@on_every_device
def test_at_full_correlation_the_winner_is_the_samplers(device: str) -> None:
    masses = np.random.default_rng(1).dirichlet(np.full(300, 0.3))
    chosen = winners(np.log(masses), 1.0, 200, device)
    sampler, rng = CopulaSampler(1.0), np.random.default_rng(0)
    tokens = np.arange(300, dtype=np.uint32)
    for seed, token in enumerate(chosen):
        stream = KeyedUniforms(make_record(seed)).at([3])
        assert stream is not None
        masses32 = np.exp(np.log(masses).astype(np.float32).astype(np.float64))
        assert sampler.choose(masses32, stream.uniforms(tokens), rng) == token


def test_candidates_are_what_is_not_cut() -> None:
    scores = torch.tensor([[0.0, -math.inf, 2.0, 3.0], [-math.inf, 5.0, -math.inf, -math.inf]])
    logits, tokens = race.candidates(scores)
    assert logits.tolist() == [[0.0, 2.0, 3.0], [5.0, -math.inf, -math.inf]]
    assert tokens[0].tolist() == [0, 2, 3]
    assert tokens[1, 0] == 1
    whole, tokens = race.candidates(scores[:, 2:3])
    assert whole.shape == tokens.shape == (2, 1)


@pytest.mark.parametrize("seed", range(5))
def test_cuts_are_those_of_transformers_warpers(seed: int) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 200, generator=generator)
    found = race.truncate(
        logits,
        torch.tensor([0.7, 1.3], dtype=torch.float64),
        torch.tensor([50, 0], dtype=torch.float64),
        torch.tensor([0.9, 1.0], dtype=torch.float64),
        torch.tensor([0.0, 0.02], dtype=torch.float64),
    )
    one = process.TemperatureLogitsWarper(0.7)(None, logits[:1])
    one = process.TopKLogitsWarper(50)(None, one)
    one = process.TopPLogitsWarper(0.9)(None, one)
    other = process.TemperatureLogitsWarper(1.3)(None, logits[1:])
    other = process.MinPLogitsWarper(0.02)(None, other)
    for row, expected in ((0, one), (1, other)):
        assert (torch.isfinite(found[row]) == torch.isfinite(expected[0])).all()
        kept = torch.isfinite(expected[0])
        assert torch.allclose(found[row][kept].float(), expected[0][kept], atol=1e-5)


def truncated_by_sorting(logits: Any, temperature: Any, top_k: Any, top_p: Any, min_p: Any) -> Any:
    """Return the same from the whole vocabulary in order, by the definitions."""
    scaled = logits.to(torch.float64) / temperature[:, None]
    floor = scaled.amax(-1, keepdim=True) + torch.log(min_p)[:, None]
    scaled = scaled.masked_fill(scaled < floor, -math.inf)
    ordered, tokens = scaled.sort(-1, descending=True)
    ranks = torch.arange(ordered.shape[-1])
    is_beyond = (top_k[:, None] > 0) & (ranks >= top_k[:, None])
    ordered = ordered.masked_fill(is_beyond, -math.inf)
    masses = torch.softmax(ordered, -1)
    is_beyond = masses.cumsum(-1) - masses >= top_p[:, None]
    is_beyond[:, 0] = False
    ordered = ordered.masked_fill(is_beyond & (top_p[:, None] < 1.0), -math.inf)
    return torch.full_like(scaled, -math.inf).scatter_(-1, tokens, ordered)


CUTS: dict[str, list[tuple[float, float, float]]] = {  # top-k, top-p, min-p of every row
    "none": [(0, 1.0, 0.0), (-1, 1.0, 0.0), (5000, 1.0, 0.0)],
    "floor": [(0, 1.0, 0.1), (0, 1.0, 0.0)],
    "k": [(50, 1.0, 0.0), (1, 1.0, 0.0), (4999, 1.0, 0.0)],
    "k and p": [(50, 0.9, 0.0), (3000, 0.99, 0.001), (1, 0.1, 0.0)],
    "p": [(0, 0.9, 0.0), (0, 0.01, 0.0), (0, 0.5, 0.02)],
    "p beyond the list": [(0, 0.999999, 0.0), (0, 0.5, 0.0), (20, 0.9, 0.0)],
    "mixed": [(0, 1.0, 0.0), (40, 0.95, 0.05), (0, 0.8, 0.0), (7, 1.0, 0.0)],
}


@on_every_device
@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_cuts_by_a_list_are_those_of_the_whole_vocabulary_bit_for_bit(
    device: str, name: str, spread: float
) -> None:
    cuts = CUTS[name]
    generator = torch.Generator().manual_seed(len(name))
    logits = spread * torch.randn(len(cuts), 5000, generator=generator)
    logits[:, 17] = -math.inf  # what a grammar masked
    temperature = torch.linspace(0.6, 1.4, len(cuts), dtype=torch.float64)
    columns = torch.tensor(cuts, dtype=torch.float64).T
    found = race.truncate(logits.to(device), temperature, *columns)
    assert torch.equal(found.cpu(), truncated_by_sorting(logits, temperature, *columns))


def test_a_short_list_is_all_that_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    likeliest = race._likeliest

    def listed(scaled: Any, counts: Any, top_p: Any, size: int) -> Any:
        sizes.append(size)
        return likeliest(scaled, counts, top_p, size)

    monkeypatch.setattr(race, "_likeliest", listed)
    logits = 3 * torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    for name in ("none", "floor", "k and p", "p", "p beyond the list"):
        columns = torch.tensor(CUTS[name], dtype=torch.float64).T
        race.truncate(logits[: len(CUTS[name])], torch.ones(len(CUTS[name])), *columns)
    assert sizes == [3000, 1024, 1024, 5000]  # the last was too short at first
