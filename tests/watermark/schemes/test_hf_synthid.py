"""transformers' SynthID: its own processor, and p by its whole key space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.support.foreign import foreign_detector, foreign_record, synthid_text
from watermark.schemes import reader_of
from watermark.schemes.hf_synthid import SynthidReader
from watermark.seeding import as_token_ids

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIGNIFICANCE = 1e-4
KEYS = list(np.random.default_rng(0).integers(2**40, size=30))
KEYS = [int(key) for key in KEYS]


def theirs(ids: list[int], keys: list[int], *, table_seed: int = 0) -> tuple[int, int]:
    """Return transformers' ones over all layers, and its n-grams, repeated contexts left out."""
    processor = transformers.SynthIDTextWatermarkLogitsProcessor(
        ngram_len=5,
        keys=keys,
        sampling_table_size=2**16,
        sampling_table_seed=table_seed,
        context_history_size=1024,
        device=torch.device("cpu"),
    )
    tokens = torch.tensor([ids])
    mask = processor.compute_context_repetition_mask(input_ids=tokens)
    ones = processor.compute_g_values(input_ids=tokens) * mask[:, :, None]
    return int(ones.sum()), int(mask.sum())


@pytest.mark.parametrize("seed", [0, 3])
def test_ones_are_the_engines(seed: int) -> None:
    text = (np.random.default_rng(seed).zipf(1.3, 400) % 50).tolist() + list(range(70_000, 70_050))
    ones, n = theirs(text, KEYS, table_seed=seed)
    result = foreign_detector("hf-synthid", KEYS, sampling_table_seed=seed).detect(text)
    assert (result.statistic, result.n_scored) == (ones, n)


def test_its_own_text_is_found_under_its_keys_and_no_others() -> None:
    text = synthid_text(200, KEYS)
    result = foreign_detector("hf-synthid", KEYS).detect(text)
    assert result.law.name == "key space"
    assert result.log10_pvalue < -20
    assert result.log_pvalue >= result.law.log_pvalue_floor == -30 * math.log(65536)
    wrong = foreign_detector("hf-synthid", [key + 1 for key in KEYS]).detect(text)
    assert wrong.log10_pvalue > -4
    same = foreign_detector("hf-synthid", [key + 65536 for key in KEYS]).detect(text)
    assert same.statistic == result.statistic  # 16 bits are all that counts


def small_reader(keys: list[int]) -> Any:
    return reader_of(foreign_record("hf-synthid", keys, width=2, sampling_table_size=16))


def test_p_is_the_share_of_all_keys() -> None:
    """All 16^3 keys of a small scheme, gone through one by one."""
    ids = as_token_ids(np.random.default_rng(1).integers(40, size=30))
    reader = small_reader([1, 2, 3])
    pairs = reader.read(reader.positions(ids))
    every = []
    for number in range(16**3):
        keys = [number & 15, number >> 4 & 15, number >> 8]
        every.append(small_reader(keys).statistic(pairs))
    sums = np.array(every)
    for statistic in np.unique(sums):
        share = math.log((sums >= statistic).mean())
        assert reader.log_pvalue(float(statistic), pairs) == pytest.approx(share, abs=1e-12)


def test_p_is_uniform_over_keys_on_pooled_text_where_a_binomial_is_not() -> None:
    rng = np.random.default_rng(2)
    n = 100_000  # index bases as of a large corpus: the table's bias adds up
    reader = reader_of(foreign_record("hf-synthid", KEYS, sampling_table_seed=3))
    positions = reader.positions(as_token_ids(rng.integers(2**31, size=n + 4)))
    pairs = reader.evaluate(positions)
    p, binomial = [], []
    for _ in range(20):
        one = reader.decoy(rng)
        assert isinstance(one, SynthidReader)
        ones = one.statistic(pairs)
        p.append(math.exp(one.log_pvalue(ones, pairs)))
        binomial.append(stats.norm.sf((ones - 15 * n) / math.sqrt(7.5 * n)))
    assert stats.kstest(p, "uniform").pvalue > SIGNIFICANCE
    assert np.mean(np.array(binomial) < 0.01) > 0.8  # negative control: a false alarm


def test_p_is_uniform_over_keys_on_a_short_text() -> None:
    rng = np.random.default_rng(4)
    reader = reader_of(foreign_record("hf-synthid", KEYS))
    pairs = reader.read(reader.positions(as_token_ids(rng.zipf(1.3, 120) % 300)))
    decoys = [reader.decoy(rng) for _ in range(120)]
    p = np.array([math.exp(one.log_pvalue(one.statistic(pairs), pairs)) for one in decoys])
    assert stats.kstest(p, "uniform").pvalue > SIGNIFICANCE
