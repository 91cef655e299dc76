"""What is noted of accounts: counts, keyed digests and sketches, over workers, without text."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from proxy.accounts import sketch
from proxy.accounts.book import Caller
from proxy.accounts.document import Rules
from proxy.accounts.shared_file import open_shared
from proxy.accounts.suspects import cluster_name, rank_suspects
from proxy.accounts.watch import Watch
from proxy.accounts.watch_store import RETENTION_DAYS, WatchStore
from tests.support.accounts import digest
from watermark.seeding import ContextPRF
from watermark.wire.openai_requests import DialectName, GenerationRequest, parse_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxy.accounts.suspects import Suspect

NOON = 20_000 * 86_400 + 43_200.0
WITNESS = "zebrafish"  # in every prompt that must leave no trace


def caller(name: str, key: str = "sk-1") -> Caller:
    return Caller(name=name, rules=Rules(), state="active", digest=digest(key))


def chat(text: str, **body: Any) -> GenerationRequest:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
    return parse_request(
        DialectName.CHAT, json.dumps({"model": "m", "messages": messages} | body).encode()
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WatchStore]:
    store = WatchStore(tmp_path / "accounts.sqlite")
    yield store
    store.close()


@pytest.mark.parametrize("n", [0, 10, 1000, 30_000])
def test_a_sketch_counts_within_its_error(n: int) -> None:
    prf, registers = ContextPRF(b"k" * 16), sketch.empty()
    tokens = np.arange(n + 1, dtype=np.uint32).tolist()
    for _ in range(2):  # what comes again is not counted again
        sketch.add_contexts(registers, prf, tokens, 1)
    assert abs(sketch.estimate(registers) - n) <= 0.1 * n


def test_two_halves_are_merged_to_the_whole() -> None:
    prf, halves = ContextPRF(b"k" * 16), [sketch.empty(), sketch.empty()]
    for half, start in zip(halves, (0, 3000), strict=True):
        sketch.add_contexts(half, prf, list(range(start, start + 5001)), 1)
    assert abs(sketch.estimate(sketch.merged(*halves)) - 8000) < 800


def test_notes_of_workers_come_together(store: WatchStore) -> None:
    for start in (0.0, 100.0):
        watch = Watch(b"w" * 32)
        for i in range(3):
            now = NOON + start + 10 * i
            watch.asked(caller("acme"), chat(f"{WITNESS} {i}", reasoning_effort="low"), now=now)
            watch.decided(caller("acme"), "marked")
            watch.delivered(caller("acme"), list(range(600 + i)), 2)
        watch.asked(caller("acme"), None, now=NOON + start + 30)
        watch.decided(caller("acme"), "other-path")
        store.add(watch.take())
        assert watch.take() == {}
    record = store.records()["acme"]
    assert (record.requests, record.reasoning, record.replies) == (8, 6, 6)
    assert (record.long_replies, record.tokens) == (6, 2 * (600 + 601 + 602))
    assert record.reasons == {"marked": 6, "other-path": 2}
    assert record.days == {20_000: (8, 6, 3606)}
    assert (record.gaps, record.gap_seconds) == (7, 130.0)
    assert (record.first_s, record.last_s) == (NOON, NOON + 130)
    assert abs(sketch.estimate(record.registers) - 600) < 60
    assert record.traits["key"] == {digest("sk-1")[4:]: 8}
    assert sum(record.traits["system-prompt"].values()) == 6


def noted_by_workers(
    path: Path, arrivals: list[float], *, workers: int, flush_s: float
) -> tuple[int, float, float]:
    """Return an account's pauses when its requests go to the workers by chance."""
    rng = np.random.default_rng(workers)
    watches = [Watch(b"w" * 32) for _ in range(workers)]
    flushed = arrivals[0]
    with contextlib.closing(WatchStore(path)) as store:
        for now in arrivals:
            if now - flushed > flush_s:
                for place in rng.permutation(workers):
                    store.add(watches[place].take())
                flushed = now
            watches[rng.integers(workers)].asked(caller("acme"), None, now=now)
        for watch in watches:
            store.add(watch.take())
        record = store.records()["acme"]
    return record.gaps, record.gap_seconds, record.gap_squares


@pytest.mark.parametrize("start", [NOON, NOON + 43_000.0])
@pytest.mark.parametrize("flush_s", [0.0, 1.0, 9.0])
def test_pauses_are_those_of_all_workers_together(
    tmp_path: Path, start: float, flush_s: float
) -> None:
    """Also where they stand on two days, or come at the same instant, or after a rest."""
    rng = np.random.default_rng(0)
    pauses = np.concatenate([rng.exponential(3.0, 200), [0.0, 0.0, 700.0], np.full(200, 2.0)])
    arrivals = (start + np.cumsum(pauses)).tolist()
    noted = noted_by_workers(tmp_path / "a", arrivals, workers=4, flush_s=flush_s)
    counted = np.diff(arrivals)
    counted = counted[counted < 600]
    assert noted[0] == counted.size
    assert noted[1:] == pytest.approx((counted.sum(), (counted**2).sum()))


def test_a_steady_caller_stands_out_over_several_workers(store: WatchStore, tmp_path: Path) -> None:
    arrivals = [NOON + 2.0 * i for i in range(100)]
    noted_by_workers(tmp_path / "accounts.sqlite", arrivals, workers=4, flush_s=1.0)
    (steady,) = rank_suspects(store.records())
    assert steady.features.regularity < 0.01
    assert "steady pauses (variation 0.00)" in steady.reasons
    with open_shared(tmp_path / "accounts.sqlite", "", busy_ms=1000) as connection:
        ((kept,),) = connection.execute("SELECT count(*) FROM arrivals")
    assert kept <= 7  # those of the last ten seconds, and one before


def test_no_word_of_a_prompt_is_kept(store: WatchStore, tmp_path: Path) -> None:
    watch = Watch(b"w" * 32)
    watch.asked(caller("acme"), chat(WITNESS), now=NOON)
    store.add(watch.take())
    store.close()
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        assert WITNESS.encode() not in data
        assert b"sk-1" not in data


def test_digests_hang_on_the_key() -> None:
    traits = []
    for key in (b"w" * 32, b"v" * 32):
        watch = Watch(key)
        watch.asked(caller("acme"), chat("x"), now=NOON)
        ((_, notes),) = watch.take().items()
        traits.append({trait for trait in notes.traits if trait[0] != "key"})
    assert not traits[0] & traits[1]


def test_what_is_old_is_forgotten(store: WatchStore) -> None:
    for day in (0, 1, RETENTION_DAYS + 1):
        watch = Watch(b"w" * 32)
        watch.asked(caller("acme"), None, now=NOON + 86_400 * day)
        store.add(watch.take())
    assert sorted(store.records()["acme"].days) == [20_001, 20_001 + RETENTION_DAYS]


def test_who_has_no_name_is_not_noted() -> None:
    watch = Watch(b"w" * 32)
    watch.asked(caller(""), None, now=NOON)
    watch.decided(caller(""), "marked")
    watch.delivered(caller(""), [1, 2, 3], 2)
    assert watch.take() == {}


def ranked(store: WatchStore) -> dict[str, Suspect]:
    return {one.name: one for one in rank_suspects(store.records())}


def test_a_harvest_stands_out_and_the_usual_does_not(store: WatchStore) -> None:
    watch, rng = Watch(b"w" * 32), np.random.default_rng(0)
    now = NOON
    for _ in range(30):
        now += float(rng.exponential(20))
        for name in ("one", "two", "three"):
            watch.asked(caller(name, f"sk-{name}"), chat(f"{rng.random()} ask {name}"), now=now)
            watch.decided(caller(name), "marked")
            watch.delivered(caller(name), rng.integers(0, 50, 40).tolist(), 2)
    for i in range(200):
        asked = chat(f"Solve this task step by step now: {i}", reasoning_effort="high")
        for name in ("reap-1", "reap-2"):
            watch.asked(caller(name, f"sk-{name}"), asked, now=NOON + 3 * i)
            watch.decided(caller(name), "temperature-zero" if i % 4 else "marked")
            watch.delivered(caller(name), rng.integers(0, 900, 700).tolist(), 2)
    store.add(watch.take())
    found = rank_suspects(store.records())
    cluster = cluster_name(["reap-1", "reap-2"])
    assert [one.name for one in found[:3]] == [cluster, "reap-1", "reap-2"]
    for part in (
        "times the usual volume",
        "512 tokens or more",
        "100% of prompts follow one template",
        "of all contexts delivered",
        "100% of requests ask for reasoning traces",
        "steady pauses",
        "75% of requests are of a form that is not marked",
        "2 accounts share",
    ):
        assert any(part in reason for reason in found[0].reasons), (part, found[0].reasons)
    assert [one.reasons for one in found[3:]] == [()] * 3


def test_a_key_in_two_accounts_makes_a_cluster(store: WatchStore) -> None:
    watch = Watch(b"w" * 32)
    for name in ("a", "b", "c"):
        watch.asked(caller(name, "sk-c" if name == "c" else "sk-ab"), None, now=NOON)
    store.add(watch.take())
    found = ranked(store)
    assert set(found) == {"a", "b", "c", cluster_name("ab")}
    assert found[cluster_name("ab")].links == {"key": 1}
    assert found[cluster_name("ab")].reasons == ("2 accounts share 1 key",)
    assert found["c"].reasons == ()


def test_without_notes_nobody_is_ranked(store: WatchStore) -> None:
    assert rank_suspects(store.records()) == []
