"""What accounts have used, shared by all workers of a machine: quotas, and who has been served.

One small SQLite file in the state folder. It is shared state because a quota that each worker
held for its share would be wrong by the number of workers whenever callers stick to connections;
it is SQLite because counting up under a limit is one transaction there, whoever dies in it. A
counter may be lost in a power cut (no fsync): what was delivered is the ledger's to know.

Rule 1: a request is counted before it is served, its completion tokens are reserved then (what it
may take at most) and set right when it has ended. Rule 2: windows are fixed: minutes and days of
the clock in UTC. Rule 3: where the file cannot be used nothing with a quota is served.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import apsw

from proxy.accounts.shared_file import open_shared
from proxy.errors import AccountsDownError, QuotaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxy.accounts.document import Rules

WINDOWS: Final = {"minute": 60, "day": 86_400}
FILE_NAME: Final = "accounts.sqlite"
_BUSY_MS: Final = 1000
_MOST_REMEMBERED: Final = 1 << 17
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS used (
    account TEXT NOT NULL, period TEXT NOT NULL, start INTEGER NOT NULL,
    requests INTEGER NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (account, period)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS served (account TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_READ: Final = "SELECT requests, tokens FROM used WHERE account = ? AND period = ? AND start = ?"
_ADD: Final = """
INSERT INTO used VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (account, period) DO UPDATE SET
    requests = iif(start = ?3, requests, 0) + ?4,
    tokens = iif(start = ?3, tokens, 0) + ?5,
    start = ?3
"""
_SETTLE: Final = """
UPDATE used SET tokens = max(0, tokens + ?4) WHERE account = ?1 AND period = ?2 AND start = ?3
"""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that was counted.

    Attributes:
        account: Whose it is.
        now: When, in seconds since the epoch.
        reserved: Completion tokens that were reserved for it.
    """

    account: str
    now: float
    reserved: int


@dataclass(frozen=True, slots=True)
class _Window:
    """A minute or a day: its number since the epoch, and the seconds until the next."""

    period: str
    start: int
    left_s: int


def _windows(now: float) -> list[_Window]:
    return [
        _Window(period, int(now // seconds), int(seconds - now % seconds) + 1)
        for period, seconds in WINDOWS.items()
    ]


class UsageStore:
    """One process's connection to the shared counters.

    Make it in the process that uses it: a connection is not to be carried over a fork.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, made where there is none.

        Raises:
            AccountsDownError: It cannot be opened.
        """
        self._path = path
        self._served: set[str] = set()
        with self._errors():
            self._connection = open_shared(path, _SCHEMA, busy_ms=_BUSY_MS)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def was_served(self, account: str) -> bool:
        """Return whether an account has been served before, by any worker."""
        if account in self._served:
            return True
        with self._errors():
            found = self._connection.execute("SELECT 1 FROM served WHERE account = ?", (account,))
            is_known = found.fetchone() is not None
        if is_known:
            self._remember(account)
        return is_known

    def mark_served(self, account: str) -> None:
        """Remember that an account is served."""
        if account in self._served:
            return
        with self._errors():
            self._connection.execute("INSERT OR IGNORE INTO served VALUES (?)", (account,))
        self._remember(account)

    def _remember(self, account: str) -> None:
        if len(self._served) >= _MOST_REMEMBERED:
            self._served.clear()
        self._served.add(account)

    def admit(self, account: str, rules: Rules, tokens: int, *, now: float) -> Admitted:
        """Count a request, unless it is one too many.

        Args:
            account: Whose it is.
            rules: The account's quotas.
            tokens: Completion tokens that it may take, as far as it says.
            now: Seconds since the epoch.

        Raises:
            QuotaError: The account has used up a quota; nothing was counted.
            AccountsDownError: The counters cannot be used.
        """
        if rules.has_quota:
            windows = _windows(now)
            with self._errors(), self._transaction():
                for window in windows:
                    self._check(account, rules, window, tokens)
                for window in windows:
                    bindings = (account, window.period, window.start, 1, tokens)
                    self._connection.execute(_ADD, bindings)
        return Admitted(account, now, tokens)

    def _check(self, account: str, rules: Rules, window: _Window, tokens: int) -> None:
        place = (account, window.period, window.start)
        row = self._connection.execute(_READ, place).fetchone() or (0, 0)
        for name, used, wanted in (("requests", row[0], 1), ("tokens", row[1], max(1, tokens))):
            limit = getattr(rules, f"{name}_per_{window.period}")
            if limit is not None and used + wanted > limit:
                raise QuotaError(
                    f"this account may use {limit} {name} a {window.period}, {used} are used and "
                    f"{wanted} asked for; try again in {window.left_s} s",
                    reason=f"{name}-per-{window.period}",
                    retry_after_s=window.left_s,
                )

    def settle(self, admitted: Admitted, rules: Rules, tokens: int) -> None:
        """Put the tokens that a request has taken in place of those reserved for it.

        Raises:
            AccountsDownError: The counters cannot be used.
        """
        change = tokens - admitted.reserved
        if change and rules.has_quota:
            with self._errors(), self._transaction():
                for window in _windows(admitted.now):
                    place = (admitted.account, window.period, window.start)
                    self._connection.execute(_SETTLE, (*place, change))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as err:
            raise AccountsDownError(
                "the service cannot check this account's quota now; try again later"
            ) from err
