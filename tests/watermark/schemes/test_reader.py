"""The protocol that a detector relies on, held by every reader in the registry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.drive import make_record
from tests.support.foreign import foreign_record
from watermark.keys import FOREIGN_SCHEMES, KeyRecord
from watermark.keys.record import (
    SCHEMES,
)
from watermark.schemes import NO_CONTEXTS, READERS, Pairs, join, reader_of
from watermark.seeding import as_token_ids

IDS = as_token_ids([1, 2, 3, 1, 2, 4, 1, 2, 3, 5])


def test_every_scheme_of_a_key_file_has_a_reader() -> None:
    assert set(READERS) == set(SCHEMES)


def test_the_first_token_of_each_context_is_read() -> None:
    reader = reader_of(make_record(0, width=2))
    positions = reader.positions(IDS)
    assert positions.contexts.shape == (8, 2)
    assert positions.tokens.tolist() == IDS[2:].tolist()
    pairs = reader.read(positions)
    every = reader.evaluate(positions)
    assert len(every) == len(positions)
    # (1,2)>3, (2,3)>1, (3,1)>2, (2,4)>1 and (4,1)>2 are first of their context.
    assert pairs.identities.tolist() == every.identities[[0, 1, 2, 4, 5]].tolist()


def test_contexts_of_a_text_are_excluded_its_last_one_too() -> None:
    reader = reader_of(make_record(0, width=2))
    seen = reader.contexts(as_token_ids([9, 1, 2]))
    assert len(seen) == 2
    assert len(reader.contexts(as_token_ids([9]))) == len(reader.contexts(as_token_ids([]))) == 0
    positions = reader.positions(IDS)
    every = reader.evaluate(positions).identities
    kept = reader.read(positions, excluded=seen).identities
    assert kept.tolist() == every[[1, 2, 4, 5]].tolist()  # no position after (1, 2)
    all_seen = reader.contexts(IDS)
    assert len(reader.read(positions, excluded=all_seen)) == 0
    assert len(reader.read(positions, excluded=NO_CONTEXTS)) == 5


@pytest.mark.parametrize("share", [0, 30_000])
def test_a_family_counts_a_pair_once(share: int) -> None:
    reader = reader_of(make_record(1, width=2, account_share_q16=share))
    parts = [reader.read(reader.positions(ids)) for ids in (IDS, IDS, IDS[3:])]
    joined = join(parts)
    assert set(joined.identities.tolist()) == {
        x for part in parts for x in part.identities.tolist()
    }
    assert len(set(joined.identities.tolist())) == len(joined)
    assert join(parts[:1]) is parts[0]


def test_draws_of_their_own_follow_their_pairs() -> None:
    one = Pairs(np.array([5, 7], np.uint64), np.array([[1, 2], [3, 4]]))
    two = Pairs(np.array([7, 9], np.uint64), np.array([[3, 4], [5, 6]]))
    joined = join([one, two])
    assert joined.identities.tolist() == [5, 7, 9]
    assert joined.draws.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert repr(joined) == "<Pairs>"


def test_a_decoy_is_another_key_of_the_same_scheme() -> None:
    reader = reader_of(make_record(0, width=2))
    decoy = reader.decoy(np.random.default_rng(0))
    assert decoy.context_width == 2
    positions = reader.positions(IDS)
    ours, theirs = reader.read(positions), decoy.read(positions)
    assert len(ours) == len(theirs)
    assert reader.statistic(ours) != decoy.statistic(theirs)


KEY = 1311768467463790320


def record_of(scheme: str) -> KeyRecord:
    """Return a key of any scheme, context width 2 where the scheme has a choice."""
    if scheme == "sglang-native":
        return replace(make_record(0, width=2), unit="tokenizer:sha256:" + "0" * 64, scheme=scheme)
    if scheme not in FOREIGN_SCHEMES:
        return make_record(0, width=2)
    parameters = {"vocab_size": 100} if scheme == "hf-green-list" else {}
    width = 1 if scheme == "hf-green-list" else 2
    return foreign_record(scheme, [KEY], width=width, **parameters)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_reader_keeps_the_rules(scheme: str) -> None:
    reader = reader_of(record_of(scheme))
    ids = as_token_ids(np.random.default_rng(0).integers(40, size=60))
    positions = reader.positions(ids)
    pairs = reader.read(positions)
    assert 0 < len(pairs) <= len(positions)
    assert len(reader.evaluate(positions)) == len(positions)
    # A text that is given again adds nothing, to a hair.
    again = join([pairs, reader.read(reader.positions(ids)), pairs])
    assert again.identities.tolist() == pairs.identities.tolist()
    statistic = reader.statistic(pairs)
    assert reader.statistic(again) == pytest.approx(statistic, rel=1e-12)
    log_pvalue = reader.log_pvalue(statistic, pairs)
    assert reader.law(pairs).log_pvalue_floor <= log_pvalue <= 0
    # What was in view is not scored; vLLM's padded beginnings are in nobody's view.
    left = reader.read(positions, excluded=reader.contexts(ids))
    assert len(left) == (reader.context_width if scheme == "vllm-gumbel" else 0)
    # Nothing scored says nothing.
    nothing = reader.read(reader.positions(ids[:0]))
    assert reader.log_pvalue(reader.statistic(nothing), nothing) == 0.0
    # No key is shown, and a decoy is another one.
    assert str(KEY) not in repr(reader)
    assert f"{KEY:x}" not in repr(reader)
    decoy = reader.decoy(np.random.default_rng(1))
    assert decoy.context_width == reader.context_width
    assert decoy.statistic(decoy.read(decoy.positions(ids))) != statistic or scheme.startswith("hf")
