"""Torch's CPU randomness without torch, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from watermark.schemes.mersenne import Permutations, Twister

torch = pytest.importorskip("torch")

SEEDS = (0, 1, 15485863, 15485863 * 31999, 2**32 - 1, 2**63 + 12345, 2**64 - 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [2, 3, 50, 1000])
def test_the_first_of_a_permutation_are_torchs(seed: int, size: int) -> None:
    theirs = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    for first in {1, size // 4, size - 1} - {0}:
        permutations = Permutations(size, first)
        swaps = permutations.swaps(seed)
        found = [token for token in range(size) if permutations.is_among_first(swaps, token)]
        assert found == sorted(theirs[:first])


@pytest.mark.parametrize("seed", SEEDS[:4])
@pytest.mark.parametrize("size", [2, 9, 500])
def test_the_values_of_a_permutation_are_torchs(seed: int, size: int) -> None:
    theirs = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).numpy()
    permutations = Permutations(size, size)
    swaps = permutations.swaps(seed)
    assert permutations.values_at(swaps, np.arange(size)).tolist() == theirs.tolist()
    some = np.array([0, size - 1])
    assert permutations.values_at(swaps, some).tolist() == theirs[some].tolist()


def test_a_long_permutation_of_a_table() -> None:
    size = 1_000_003
    theirs = torch.randperm(size, generator=torch.Generator().manual_seed(15485863)).numpy()
    permutations = Permutations(size, size)
    places = np.random.default_rng(0).choice(size, 300, replace=False)
    found = permutations.values_at(permutations.swaps(15485863), places)
    assert found.tolist() == theirs[places].tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_table_of_bits_is_torchs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    theirs = torch.randint(0, 2, (4096,), generator=generator).numpy()
    assert ((Twister().words(seed, 4096) & np.uint64(1)) == theirs).all()
