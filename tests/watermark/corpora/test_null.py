"""Under the null the pooled p-value is uniform over keys, whatever the corpus repeats."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from scipy import stats

from tests.watermark.corpora.conftest import key, plain
from watermark import Detector, WordsUnit
from watermark.corpora import scan, shards
from watermark.stats import gamma_log_sf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

N_KEYS = 250


def test_the_pooled_p_value_is_uniform_over_keys(
    tmp_path: Path, jsonl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 10_000)
    template = plain(1, 60)
    texts = [f"{template} {plain(i % 20, 30)} {template}" for i in range(100)]
    path = jsonl("a.jsonl", [{"text": text, "q": plain(i % 3, 12)} for i, text in enumerate(texts)])
    keys = [key(i, account_share_q16=20_000 * (i % 2)) for i in range(N_KEYS)]
    result = scan([path], keys, out=tmp_path / "h.parquet", prompt_field="q", fdr=0.1)
    pvalues = [math.exp(one.log_pvalue) for one in result.pooled]
    assert stats.kstest(pvalues, "uniform").pvalue > 0.001
    assert result.n_hits <= 5
    # The negative control: documents scored one by one and added up count repeats, and fail.
    naive = []
    for record in keys[::5]:
        detector = Detector(record, WordsUnit())
        single = [detector.detect(text) for text in texts]
        total = math.fsum(one.statistic for one in single)
        naive.append(math.exp(gamma_log_sf(total, sum(one.n_scored for one in single))))
    assert stats.kstest(naive, "uniform").pvalue < 1e-9


def test_which_pairs_are_scored_does_not_depend_on_the_key(
    tmp_path: Path, jsonl: Callable[..., Path]
) -> None:
    path = jsonl("a.jsonl", [{"text": plain(i % 7)} for i in range(30)])
    counts = {
        one.n_scored
        for one in scan([path], [key(i) for i in range(9)], out=tmp_path / "h.parquet").pooled
    }
    assert len(counts) == 1
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    ids = [WordsUnit().encode(text).tolist() for text in texts]
    firsts = {
        (*context, one[i])
        for one in ids
        for i in range(2, len(one))
        if (context := tuple(one[i - 2 : i])) not in {tuple(one[j - 2 : j]) for j in range(2, i)}
    }
    assert counts == {len(firsts)}
