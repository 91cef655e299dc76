"""transformers' green lists: its own processor and detector, decoys, and where its p is wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.foreign import (
    VOCAB,
    foreign_detector,
    foreign_record,
    green_list_text,
)
from watermark.errors import KeysConfigError
from watermark.schemes import reader_of
from watermark.schemes.hf_green_list import GreenListReader
from watermark.seeding import as_token_ids

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KEY = 15485863


def theirs(ids: list[int], **config: Any) -> Any:
    """Return what transformers' own detector counts, repeats ignored."""
    detector = transformers.WatermarkDetector(
        model_config=transformers.GPT2Config(vocab_size=VOCAB, bos_token_id=VOCAB - 1),
        device="cpu",
        watermarking_config=transformers.WatermarkingConfig(**config),
        ignore_repeated_ngrams=True,
    )
    return detector(torch.tensor([ids]), return_dict=True)


@pytest.mark.parametrize("ratio", [0.25, 0.5])
@pytest.mark.parametrize("key", [KEY, 3, 2**63 - 1])
def test_lefthash_counts_are_the_engines(key: int, ratio: float) -> None:
    text = np.random.default_rng(0).zipf(1.3, 300) % (VOCAB - 1)
    found = theirs(text.tolist(), hashing_key=key, greenlist_ratio=ratio)
    record = foreign_record("hf-green-list", [key], vocab_size=VOCAB, greenlist_ratio=ratio)
    reader = reader_of(record)
    pairs = reader.read(reader.positions(as_token_ids(text)))
    assert len(pairs) == found.num_tokens_scored[0]
    assert reader.statistic(pairs) == found.num_green_tokens[0]


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("key", [KEY, 2**40 + 11])
def test_selfhash_counts_are_the_engines(key: int, width: int) -> None:
    text = np.random.default_rng(1).zipf(1.3, 80) % (VOCAB - 1)
    found = theirs(
        text.tolist(), hashing_key=key, seeding_scheme="selfhash", context_width=width + 1
    )
    record = foreign_record(
        "hf-green-list", [key], width=width, vocab_size=VOCAB, seeding_scheme="selfhash"
    )
    reader = reader_of(record)
    pairs = reader.read(reader.positions(as_token_ids(text)))
    assert len(pairs) == found.num_tokens_scored[0]
    assert reader.statistic(pairs) == found.num_green_tokens[0]


def test_a_marked_text_reaches_the_floor_and_no_lower() -> None:
    text = green_list_text(45, hashing_key=KEY, bias=4.0)
    result = foreign_detector("hf-green-list", [KEY], vocab_size=VOCAB).detect(text)
    assert result.law.name == "decoys"
    assert result.effect > 0.5
    assert result.log_pvalue == result.law.log_pvalue_floor == -math.log(1000)
    other = foreign_detector("hf-green-list", [KEY + 1], vocab_size=VOCAB).detect(text)
    assert other.log_pvalue > math.log(0.01)
    assert theirs(text, hashing_key=KEY).p_value[0] < 1e-6  # which its 64 bits cannot bear out


def test_decoys_are_drawn_from_the_pairs_and_again_the_same() -> None:
    text = (np.random.default_rng(3).zipf(1.3, 10) % VOCAB).tolist()
    detector = foreign_detector("hf-green-list", [KEY], vocab_size=VOCAB)
    assert detector.detect(text) == detector.detect(text)


def test_the_number_of_decoys_follows_the_work_and_states_its_floor() -> None:
    reader = reader_of(foreign_record("hf-green-list", [KEY], vocab_size=VOCAB))
    assert isinstance(reader, GreenListReader)
    long = reader.read(reader.positions(as_token_ids(np.arange(5000) % VOCAB)))
    few = reader.read(reader.positions(as_token_ids(np.arange(30))))
    assert reader.law(few).log_pvalue_floor == -math.log(1000)
    assert reader.law(long).log_pvalue_floor == -math.log(1 + 150_000 // len(long))
    chosen = replace(reader, decoys=19)
    assert chosen.law(long).log_pvalue_floor == -math.log(20)
    assert chosen.log_pvalue(0.0, few) == 0.0


def test_p_is_valid_over_keys_where_tokens_share_lists() -> None:
    """Texts in which three contexts recur with many tokens: scores are dependent."""
    rng = np.random.default_rng(5)
    p = []
    for _ in range(80):
        text = np.column_stack([rng.integers(3, size=12), rng.integers(3, 40, size=12)]).ravel()
        key = int(rng.integers(2**63))
        reader = reader_of(foreign_record("hf-green-list", [key], vocab_size=40))
        assert isinstance(reader, GreenListReader)
        pairs = reader.read(reader.positions(as_token_ids(text)))
        p.append(math.exp(replace(reader, decoys=19).log_pvalue(reader.statistic(pairs), pairs)))
    for alpha in (0.05, 0.1, 0.25, 0.5):
        assert np.mean(np.array(p) <= alpha + 1e-9) <= alpha + 4 * math.sqrt(alpha / 80)
    assert min(p) >= 0.05 - 1e-9


def test_a_list_that_all_keys_share_is_no_evidence() -> None:
    """After token 0 every key has one list: green tokens there fool a z-test, not the decoys."""
    reader = reader_of(foreign_record("hf-green-list", [KEY], vocab_size=VOCAB))
    shared = [t for t in range(1, VOCAB - 1) if green(reader, 0, t)][:40]
    text = [token for after in shared for token in (0, after)]
    assert theirs(text, hashing_key=KEY).p_value[0] < 1e-6
    pairs = reader.read(reader.positions(as_token_ids(text)))
    assert isinstance(reader, GreenListReader)
    assert replace(reader, decoys=99).log_pvalue(reader.statistic(pairs), pairs) > math.log(0.02)


def green(reader: Any, before: int, token: int) -> bool:
    """Return whether one pair is green."""
    pairs = reader.read(reader.positions(as_token_ids([before, token])))
    return bool(reader.statistic(pairs) > 0)


def test_what_the_engine_would_not_take_is_refused() -> None:
    with pytest.raises(KeysConfigError, match="lefthash looks at one token"):
        foreign_detector("hf-green-list", [KEY], width=2, vocab_size=VOCAB)
    with pytest.raises(KeysConfigError, match="above"):
        foreign_detector("hf-green-list", [2**63], vocab_size=VOCAB)
