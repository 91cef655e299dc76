"""Segment by segment: an e-value whose mean is 1 under the null, and mixtures that need it."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.drive import make_record
from tests.watermark.cli.shell import marked_ids
from watermark.seeding import AccountCodes
from watermark.tracing import code_sums, trace_accounts
from watermark.tracing.segments import _log_e, segment_log_pvalues

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECORD = make_record(5, width=2, account_share_q16=1 << 14)
INNOCENT = [f"innocent-{i}" for i in range(5000)]


def all_signs(n: int) -> NDArray[np.float64]:
    return np.array(list(itertools.product([-1.0, 1.0], repeat=n)))


@settings(max_examples=30)
@given(st.lists(st.integers(-14, 14), min_size=2, max_size=9), st.data())
def test_the_mean_over_all_codes_is_one(sums: list[int], data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(1, len(sums) - 1), max_size=3))
    weights, starts = np.array(sums, float), np.array([0, *sorted(cuts)])
    signed = all_signs(len(sums)) * weights
    logs = _log_e(np.add.reduceat(signed, starts, axis=1).T, weights, starts)
    assert math.isclose(np.exp(logs).mean(), 1.0, rel_tol=1e-9)


def test_a_position_in_many_segments_would_break_it() -> None:
    """A negative control: the same coin in many segments gives a mean above 1."""
    weights = np.full(20, 14.0)
    signed = np.array([weights, -weights])
    assert np.exp(_log_e(signed.T, weights, np.arange(20))).mean() > 10


def test_every_position_is_in_one_segment() -> None:
    replies = np.random.default_rng(0).integers(0, 300, (20, 700)).tolist()
    segments = code_sums(RECORD, replies).segments
    assert len(set(segments.positions.tolist())) == len(segments.positions)
    assert segments.starts[0] == 0
    assert len(segments.starts) > 20  # each reply is cut in two
    assert (np.diff(segments.starts) > 0).all()


def test_one_reply_is_one_segment_and_has_one_test() -> None:
    ids = marked_ids(RECORD, range(50), 400, account="guilty")
    sums = code_sums(RECORD, [ids])
    assert len(sums.segments.starts) == 1
    assert sums.segments.sums.tolist() == sums.sums.tolist()


def test_segments_are_summed_by_the_accounts_signs() -> None:
    sums = code_sums(RECORD, [marked_ids(RECORD, range(50), 700, seed) for seed in (0, 1)]).segments
    codes, weights = AccountCodes(RECORD.secret, INNOCENT[:20]), sums.sums.astype(float)
    signed = np.where(codes.bits(sums.positions), -weights, weights)
    logs = _log_e(np.add.reduceat(signed, sums.starts, axis=1).T, weights, sums.starts)
    np.testing.assert_allclose(segment_log_pvalues(codes, sums), -np.maximum(logs, 0.0))


@pytest.mark.parametrize("seed", [0, 1])
def test_of_innocent_accounts_no_more_are_below_a_level_than_it_says(seed: int) -> None:
    names = ["a", "b", "c"]
    replies = [marked_ids(RECORD, range(50), 150, seed + i, account=names[i % 3]) for i in range(9)]
    sums = code_sums(RECORD, replies)
    logs = segment_log_pvalues(AccountCodes(RECORD.secret, INNOCENT), sums.segments)
    for level in (0.5, 0.1, 0.01, 0.001):
        expected = level * len(INNOCENT)
        assert (logs <= math.log(level)).sum() <= expected + 3 * math.sqrt(expected)


def test_a_small_part_of_a_mixture_is_named_only_by_segments() -> None:
    others = [f"other-{i}" for i in range(25)]
    replies = [marked_ids(RECORD, range(50), 200, i, account=name) for i, name in enumerate(others)]
    replies += [marked_ids(RECORD, range(50), 500, 99 + i, account="guilty") for i in (0, 1)]
    accounts = [*INNOCENT, "guilty"]
    sums = code_sums(RECORD, replies)
    (trace,) = trace_accounts([sums], accounts)
    (own,) = [one for one in trace.ranked if one.account == "guilty"]
    assert own.z < 6
    assert [one.account for one in trace.named(alpha=1e-3)] == ["guilty"]
