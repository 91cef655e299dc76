"""Accounts held against texts: the statistic, its null, and who is named."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.support.drive import make_record
from tests.watermark.cli.shell import marked_ids
from watermark.errors import SchemeParameterError
from watermark.keys import SecretKey
from watermark.seeding import AccountCode, AccountCodes
from watermark.stats import rademacher_log_sf
from watermark.tracing import CodeSums, code_sums, trace_accounts
from watermark.tracing import accounts as module
from watermark.tracing.accounts import _Plan, statistics_of
from watermark.tracing.codes import SegmentSums

RECORD = make_record(5, width=2, account_share_q16=1 << 14)
ALPHABET = range(50)
INNOCENT = [f"innocent-{i}" for i in range(3000)]


def text_of(account: str | None, n: int, seed: int = 0) -> list[int]:
    return marked_ids(RECORD, ALPHABET, n, seed, account=account)


def random_sums(seed: int, n: int, largest: int) -> CodeSums:
    rng = np.random.default_rng(seed)
    positions = np.sort(rng.choice(1 << 16, n, replace=False))
    sums = rng.integers(1, largest + 1, n) * rng.choice(np.array([-1, 1]), n)
    segments = SegmentSums(positions=positions, sums=sums, starts=np.zeros(min(n, 1), np.int64))
    return CodeSums(
        record=RECORD, positions=positions, sums=sums, segments=segments, n_tokens=n, n_scored=n
    )


@pytest.mark.parametrize(("n", "largest"), [(0, 1), (1, 1), (40, 7), (2000, 100)])
def test_the_statistic_is_the_signed_sum(n: int, largest: int) -> None:
    bodies = [random_sums(seed, n, largest) for seed in (0, 1)]
    names = INNOCENT[:20]
    found = list(statistics_of(AccountCodes(RECORD.secret, names), list(map(_Plan, bodies))))
    for body, statistics in zip(bodies, found, strict=True):
        for name, statistic in zip(names, statistics.tolist(), strict=True):
            bits = AccountCode(RECORD.secret, name).bits(body.positions)
            assert statistic == int(np.where(bits, -body.sums, body.sums).sum())


def test_of_innocent_accounts_no_more_are_below_a_level_than_it_says() -> None:
    sums = code_sums(RECORD, [text_of("guilty", 1500)])
    statistics = np.concatenate(
        list(statistics_of(AccountCodes(RECORD.secret, INNOCENT), [_Plan(sums)]))
    )
    logs = rademacher_log_sf(statistics.astype(float), sums.sums.astype(float))
    for level in (0.3, 0.1, 0.01, 0.001):
        expected = level * len(INNOCENT)
        assert (logs <= math.log(level)).sum() <= expected + 3 * math.sqrt(expected)
    # Nor are they shifted: given the scores, an innocent account's statistic is symmetric.
    deviation = math.sqrt((sums.sums**2).sum())
    assert abs(statistics.mean()) < 4 * deviation / math.sqrt(len(INNOCENT))
    assert abs(statistics.std() / deviation - 1) < 4 / math.sqrt(2 * len(INNOCENT))


def test_uncorrected_levels_name_the_innocent() -> None:
    """A negative control: the best of 3,000 innocent accounts is far below .001 on its own."""
    (trace,) = trace_accounts([code_sums(RECORD, [text_of(None, 1500)])], INNOCENT)
    assert trace.ranked[0].log_pvalue < math.log(1e-3)
    assert trace.named(alpha=0.01) == ()


def test_the_account_of_a_text_is_named_and_nobody_else() -> None:
    accounts = [*INNOCENT, "guilty"]
    (trace,) = trace_accounts([code_sums(RECORD, [text_of("guilty", 600)])], accounts)
    assert [one.account for one in trace.named(alpha=1e-3)] == ["guilty"]
    assert (trace.n_accounts, trace.n_tokens, trace.key_id) == (3001, 600, "k")
    assert trace.ranked[0].log10_pvalue_family < -6
    assert list(trace.ranked) == sorted(trace.ranked, key=lambda one: one.log_pvalue)


def test_another_key_names_nobody() -> None:
    other = make_record(6, width=2, account_share_q16=1 << 14)
    (trace,) = trace_accounts([code_sums(other, [text_of("guilty", 600)])], ["guilty", *INNOCENT])
    assert trace.named(alpha=1e-2) == ()


def test_a_text_without_an_account_names_nobody() -> None:
    (trace,) = trace_accounts([code_sums(RECORD, [text_of(None, 600)])], ["guilty", *INNOCENT])
    assert trace.named(alpha=1e-2) == ()


def test_all_of_a_mixture_are_named_pooled_and_each_in_its_document() -> None:
    guilty = [f"guilty-{i}" for i in range(3)]
    texts = [text_of(name, 2000, seed) for seed, name in enumerate(guilty)]
    accounts = [*INNOCENT[:1000], *guilty]
    (pooled,) = trace_accounts([code_sums(RECORD, texts)], accounts)
    assert {one.account for one in pooled.named(alpha=1e-3)} == set(guilty)
    bodies = [code_sums(RECORD, [text]) for text in texts]
    each = trace_accounts(bodies, accounts)
    assert [[one.account for one in trace.named(alpha=1e-3)] for trace in each] == [
        [name] for name in guilty
    ]


def test_the_family_is_all_bodies_and_accounts() -> None:
    sums = code_sums(RECORD, [text_of("guilty", 300)])
    accounts = ["guilty", *INNOCENT[:99]]
    (alone,) = trace_accounts([sums], accounts)
    both = trace_accounts([sums, code_sums(RECORD, [text_of(None, 300, 1)])], accounts)
    first, second = alone.ranked[0], both[0].ranked[0]
    assert first.log_pvalue == second.log_pvalue
    assert math.isclose(second.log_pvalue_family - first.log_pvalue_family, math.log(2))


def test_chunks_threads_and_order_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = [code_sums(RECORD, [text_of("guilty", 300)]), random_sums(0, 500, 9)]
    accounts = [*INNOCENT, "guilty"]
    whole = trace_accounts(sums, accounts)
    monkeypatch.setattr(module, "CHUNK_ACCOUNTS", 700)
    monkeypatch.setattr(module, "MOST_KEPT", 100)
    with ThreadPoolExecutor(2) as threads:
        parts = trace_accounts(sums, accounts, over=threads.map)
    for one, other in zip(whole, parts, strict=True):
        assert one.ranked[0] == other.ranked[0]
        assert {trace.account for trace in one.ranked[:50]} <= {
            trace.account for trace in other.ranked
        }


def test_keys_are_tested_side_by_side() -> None:
    secret = SecretKey("other", bytes(range(32)))
    other = replace(RECORD, key_id="other", secret=secret)
    text = text_of("guilty", 600)
    traces = trace_accounts(
        [code_sums(RECORD, [text]), code_sums(other, [text])], ["guilty", *INNOCENT[:50]]
    )
    assert [trace.key_id for trace in traces] == ["k", "other"]
    assert [len(trace.named(alpha=1e-3)) for trace in traces] == [1, 0]


def test_misuse_is_refused() -> None:
    sums = random_sums(0, 10, 3)
    with pytest.raises(SchemeParameterError, match="listed twice"):
        trace_accounts([sums], ["a", "a"])
    with pytest.raises(SchemeParameterError, match="names no account"):
        trace_accounts([sums], [""])
    (trace,) = trace_accounts([sums], ["a"])
    with pytest.raises(SchemeParameterError, match="alpha"):
        trace.named(alpha=0)
    assert trace_accounts([], ["a"]) == []
    assert trace_accounts([sums], [])[0].ranked == ()
