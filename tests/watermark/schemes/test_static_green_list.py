"""A static green list: as specified, valid over keys by its decoys, and no evidence."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from scipy import stats

import watermark
from watermark.detection import Detector
from watermark.errors import AuditDesignError, KeysConfigError
from watermark.keys import KeyRecord, SecretKey
from watermark.radioactivity.scoring import check_keys
from watermark.schemes import green_list, join, reader_of
from watermark.seeding import as_token_ids

UNIT = "tokenizer:sha256:" + "0" * 64
SECRET = bytes.fromhex("91a5618791bcf6a83b2024a0f2ea6fa604066832f1dc9125bdca43178b040e7a")
FIRST, SIZE = 256, 512


def record_of(seed: int, **parameters: int) -> KeyRecord:
    secret = np.random.default_rng(seed).bytes(32)
    return KeyRecord(
        key_id="k",
        unit=UNIT,
        scheme="static-green-list",
        secret=SecretKey("k", secret),
        parameters=tuple(sorted(parameters.items())),
    )


def zipf_text(
    seed: int, length: int, *, green: np.ndarray | None = None, delta: float = 0.0
) -> np.ndarray:
    """A text whose words are as unequal as a language's, biased toward a list."""
    weights = 1.0 / (np.arange(1, 2 * SIZE + 1) + 2.0)
    if green is not None:
        weights[green - FIRST] *= math.exp(delta)
    rng = np.random.default_rng(seed)
    return as_token_ids(FIRST + rng.choice(2 * SIZE, size=length, p=weights / weights.sum()))


def test_the_list_is_that_of_the_specification() -> None:
    key_id = "epoch/é".encode()
    info = b"output-watermark/v1/static-green-list" + len(key_id).to_bytes(4, "little") + key_id
    subkey = HKDF(algorithm=SHA256(), length=16, salt=None, info=info).derive(SECRET)
    encryptor = Cipher(algorithms.AES(subkey), modes.ECB()).encryptor()  # noqa: S305 - as specified
    blocks = [encryptor.update(b.to_bytes(16, "little")) for b in range(SIZE // 128)]
    coins = [blocks[i // 128][i % 128 // 8] >> (i % 8) & 1 for i in range(SIZE)]
    record = KeyRecord(
        key_id="epoch/é", unit=UNIT, scheme="static-green-list", secret=SecretKey("epoch/é", SECRET)
    )
    listed = green_list(record).tolist()
    assert listed == [FIRST + 2 * i + coin for i, coin in enumerate(coins)]
    folder = Path(watermark.__file__).parent
    text = (folder / "spec/static-green-list.md").read_text(encoding="utf-8")
    shown = re.search(r"first eight green ids are\s+([0-9, ]+)\.", text)
    assert shown is not None
    assert [int(number) for number in shown[1].split(",")] == listed[:8]


def test_parameters_move_and_size_the_list() -> None:
    record = record_of(0, first_id=1000, list_size=64)
    listed = green_list(record)
    assert len(listed) == 64
    assert ((listed - 1000) // 2).tolist() == list(range(64))
    reader = reader_of(record)
    ids = as_token_ids([1, 2, 999, 1000, 1127, 1128, 5])
    assert reader.positions(ids).tokens.tolist() == [1000, 1127]
    for parameters in ({"list_size": 1}, {"gamma": 1}, {"first_id": -1}):
        with pytest.raises(KeysConfigError, match=r"list_size|gamma|first_id"):
            record_of(0, **parameters)
    with pytest.raises(KeysConfigError, match="token ids"):
        KeyRecord(key_id="k", unit="words/v1", scheme="static-green-list",
                  secret=SecretKey("k", SECRET))  # fmt: skip


def test_a_biased_text_is_found_under_its_key_and_under_no_other() -> None:
    record = record_of(1)
    text = zipf_text(0, 400, green=green_list(record), delta=2.0)
    result = Detector(record).detect(text)
    assert result.log10_pvalue == pytest.approx(-4.0)  # its floor
    assert result.law.name == "decoys"
    assert result.log_pvalue >= result.law.log_pvalue_floor
    assert result.effect > 0.3
    others = [Detector(record_of(100 + seed)).detect(text).log_pvalue for seed in range(20)]
    assert min(others) > math.log(1e-3)


def test_decoys_agree_with_all_lists() -> None:
    """Few pairs occur, so that every outcome of their coins can be counted."""
    record = record_of(2, list_size=64)
    reader = reader_of(record)
    rng = np.random.default_rng(0)
    ids = as_token_ids(FIRST + rng.choice(20, size=60, p=(w := 1.0 / np.arange(1, 21)) / w.sum()))
    pairs = reader.read(reader.positions(ids))
    counts = np.log1p(np.bincount(pairs.draws - FIRST, minlength=20)).reshape(10, 2)
    statistic = reader.statistic(pairs)
    sums = [
        sum(counts[place, coin] for place, coin in enumerate(coins))
        for coins in itertools.product((0, 1), repeat=10)
    ]
    exact = np.mean(np.array(sums) >= statistic - 1e-9)
    found = math.exp(reader.log_pvalue(statistic, pairs))
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9_999) + 1e-3)
    law = reader.law(pairs)
    assert law.score_mean * len(pairs) == pytest.approx(np.mean(sums))
    assert law.score_sd * math.sqrt(len(pairs)) == pytest.approx(np.std(sums))


REPETITIVE = np.concatenate([zipf_text(7, 60)] * 5 + [zipf_text(8, 100)])
KEYS = 400


def naive_pvalue(record: KeyRecord) -> float:
    """The binomial test of green positions: as if every position tossed its own coin."""
    n_green = int(np.isin(REPETITIVE[2:], green_list(record)).sum())
    return float(stats.binom.sf(n_green - 1, len(REPETITIVE) - 2, 0.5))


def test_over_keys_the_null_is_kept_and_the_naive_test_fails() -> None:
    records = [record_of(1000 + seed) for seed in range(KEYS)]
    found = np.array([Detector(one).detect(REPETITIVE).log_pvalue for one in records])
    for alpha in (0.01, 0.05, 0.2):
        n_rejected = int((found <= math.log(alpha)).sum())
        # Holm over the three levels, either side at 1e-3.
        assert stats.binom.sf(n_rejected - 1, KEYS, alpha) > 1e-3 / 3
        assert stats.binom.cdf(n_rejected, KEYS, alpha) > 1e-3 / 3
    naive = np.array([naive_pvalue(one) for one in records])
    assert (naive <= 0.01).mean() > 0.05  # five times its level


def test_copies_count_once_and_contexts_in_view_not_at_all() -> None:
    reader = reader_of(record_of(3))
    ids = zipf_text(1, 200)
    pairs = reader.read(reader.positions(ids))
    again = join([pairs, reader.read(reader.positions(ids))])
    assert len(again) == len(pairs)
    assert reader.statistic(again) == pytest.approx(reader.statistic(pairs))
    assert len(reader.read(reader.positions(ids), excluded=reader.contexts(ids))) == 0


def test_it_is_no_evidence_and_audits_refuse_it() -> None:
    record = record_of(4)
    assert not record.is_evidence
    with pytest.raises(AuditDesignError, match="no evidence"):
        check_keys([record])
    plain = KeyRecord(key_id="k", unit=UNIT, secret=SecretKey("k", SECRET))
    assert plain.is_evidence
    check_keys([plain])
