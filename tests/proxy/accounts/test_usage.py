"""Quotas over all workers: counted under the limit, reserved, set right."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from proxy.accounts.document import Rules
from proxy.accounts.usage import UsageStore
from proxy.errors import AccountsDownError, QuotaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = 1_800_000_000.0 - 1_800_000_000 % 86_400 + 43_200


@pytest.fixture
def store(tmp_path: Path) -> Iterator[UsageStore]:
    store = UsageStore(tmp_path / "accounts.sqlite")
    yield store
    store.close()


def test_a_minute_has_so_many_requests_and_no_more(store: UsageStore) -> None:
    rules = Rules(requests_per_minute=2)
    store.admit("a", rules, 0, now=NOON)
    store.admit("a", rules, 0, now=NOON + 59)
    with pytest.raises(QuotaError, match="2 requests a minute") as caught:
        store.admit("a", rules, 0, now=NOON + 59)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 2)
    assert caught.value.reason == "requests-per-minute"
    store.admit("b", rules, 0, now=NOON + 59)
    store.admit("a", rules, 0, now=NOON + 60)


def test_a_refused_request_is_not_counted(store: UsageStore) -> None:
    rules = Rules(requests_per_minute=1, requests_per_day=2)
    for minute in (0, 0, 0, 1):
        try:
            store.admit("a", rules, 0, now=NOON + 60 * minute)
        except QuotaError:
            assert minute == 0
    with pytest.raises(QuotaError, match="2 requests a day"):
        store.admit("a", rules, 0, now=NOON + 120)
    store.admit("a", rules, 0, now=NOON + 86_400)


def test_tokens_are_reserved_and_set_right(store: UsageStore) -> None:
    rules = Rules(tokens_per_day=100)
    first = store.admit("a", rules, 90, now=NOON)
    with pytest.raises(QuotaError, match="100 tokens a day, 90 are used and 20 asked for"):
        store.admit("a", rules, 20, now=NOON)
    store.settle(first, rules, 30)
    store.admit("a", rules, 70, now=NOON)
    with pytest.raises(QuotaError):
        store.admit("a", rules, 0, now=NOON)


def test_what_ends_in_another_window_changes_nothing_there(store: UsageStore) -> None:
    rules = Rules(tokens_per_minute=100)
    first = store.admit("a", rules, 100, now=NOON)
    store.admit("a", rules, 100, now=NOON + 60)
    store.settle(first, rules, 0)
    with pytest.raises(QuotaError):
        store.admit("a", rules, 1, now=NOON + 61)


def test_workers_share_one_limit(tmp_path: Path) -> None:
    rules, admitted = Rules(requests_per_minute=100), []

    def work() -> None:
        store = UsageStore(tmp_path / "accounts.sqlite")
        for _ in range(60):
            with contextlib.suppress(QuotaError):
                admitted.append(store.admit("a", rules, 0, now=NOON))
        store.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 100


def test_who_was_served_is_known_to_all_workers(store: UsageStore, tmp_path: Path) -> None:
    other = UsageStore(tmp_path / "accounts.sqlite")
    assert not other.was_served("a")
    store.mark_served("a")
    assert other.was_served("a")
    assert store.was_served("a")
    other.close()


def test_without_a_quota_nothing_is_asked_of_the_file(store: UsageStore) -> None:
    store.close()
    store.admit("a", Rules(), 5, now=NOON)
    with pytest.raises(AccountsDownError, match="cannot check this account's quota"):
        store.admit("a", Rules(requests_per_day=1), 0, now=NOON)
