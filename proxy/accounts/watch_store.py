"""Where the workers' notes about accounts come together: the file of the shared counters.

Kept for `RETENTION_DAYS`; a trait (a keyed digest) once for each account, with its count.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import apsw
import numpy as np

from proxy.accounts import pauses, sketch
from proxy.accounts.shared_file import open_shared
from proxy.errors import AccountsDownError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from proxy.accounts.watch import Notes

RETENTION_DAYS: Final = 90
_BUSY_MS: Final = 2000
_MOST_TRAITS: Final = (
    4096  # kept of an account; a template comes again and again, and is among them
)
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS noted (
    account TEXT NOT NULL, day INTEGER NOT NULL, requests INTEGER NOT NULL,
    reasoning INTEGER NOT NULL, replies INTEGER NOT NULL, tokens INTEGER NOT NULL,
    long_replies INTEGER NOT NULL, gaps INTEGER NOT NULL, gap_seconds REAL NOT NULL,
    gap_squares REAL NOT NULL, first_s REAL NOT NULL, last_s REAL NOT NULL,
    sketch BLOB NOT NULL, PRIMARY KEY (account, day)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decided (
    account TEXT NOT NULL, day INTEGER NOT NULL, reason TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (account, day, reason)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS traits (
    account TEXT NOT NULL, kind TEXT NOT NULL, digest TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (account, kind, digest)
) WITHOUT ROWID;
"""
_NOTE: Final = """
INSERT INTO noted VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?, ?, ?)
ON CONFLICT (account, day) DO UPDATE SET
    requests = requests + excluded.requests, reasoning = reasoning + excluded.reasoning,
    replies = replies + excluded.replies, tokens = tokens + excluded.tokens,
    long_replies = long_replies + excluded.long_replies,
    first_s = iif(first_s > 0 AND first_s < excluded.first_s, first_s, excluded.first_s),
    last_s = max(last_s, excluded.last_s), sketch = excluded.sketch
"""
_PAUSED: Final = """
UPDATE noted SET gaps = gaps + ?3, gap_seconds = gap_seconds + ?4, gap_squares = gap_squares + ?5
    WHERE account = ?1 AND day = ?2
"""
_DECIDE: Final = """
INSERT INTO decided VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n
"""
_TRAIT: Final = """
INSERT INTO traits SELECT ?1, ?2, ?3, ?4
    WHERE (SELECT count(*) FROM traits WHERE account = ?1) < ?5
        OR EXISTS (SELECT 1 FROM traits WHERE account = ?1 AND kind = ?2 AND digest = ?3)
    ON CONFLICT DO UPDATE SET n = n + excluded.n
"""


@dataclass(slots=True)
class Record:
    """What is known of one account, over all days kept.

    Attributes:
        account: Its name.
        days: Requests, replies and tokens, by day since the epoch.
        requests: Requests let in.
        reasoning: Those that asked for a reasoning trace.
        replies: Marked replies.
        tokens: Their tokens.
        long_replies: Long ones among them.
        gaps: Pauses between requests.
        gap_seconds: Their sum.
        gap_squares: The sum of their squares.
        first_s: The first request, in seconds since the epoch.
        last_s: The last one.
        registers: The sketch of delivered contexts.
        reasons: Decisions, by reason.
        traits: Counts by kind and digest.
    """

    account: str
    days: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    requests: int = 0
    reasoning: int = 0
    replies: int = 0
    tokens: int = 0
    long_replies: int = 0
    gaps: int = 0
    gap_seconds: float = 0.0
    gap_squares: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    registers: sketch.Registers = field(default_factory=sketch.empty)
    reasons: dict[str, int] = field(default_factory=dict)
    traits: dict[str, dict[str, int]] = field(default_factory=dict)


class WatchStore:
    """A connection to the notes; one for each process and thread."""

    def __init__(self, path: Path) -> None:
        """Open the file, made where there is none.

        Raises:
            AccountsDownError: It cannot be opened.
        """
        self._path = path
        with self._errors():
            self._connection = open_shared(path, _SCHEMA + pauses.SCHEMA, busy_ms=_BUSY_MS)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def add(self, notes: Mapping[tuple[str, int], Notes]) -> None:
        """Add a worker's notes, and forget what is too old.

        Raises:
            AccountsDownError: The file cannot be written.
        """
        if not notes:
            return
        newest = max(day for _, day in notes)
        with self._errors(), self._connection:
            for (account, day), one in notes.items():
                self._add(account, day, one)
            old = newest - RETENTION_DAYS
            pauses.forget(self._connection, old)
            for table in ("noted", "decided"):
                self._connection.execute(f"DELETE FROM {table} WHERE day < ?", (old,))  # noqa: S608 - two fixed names

    def _add(self, account: str, day: int, notes: Notes) -> None:
        found = self._connection.execute(
            "SELECT sketch FROM noted WHERE account = ? AND day = ?", (account, day)
        ).fetchone()
        registers = notes.registers
        if found is not None:
            registers = sketch.merged(registers, np.frombuffer(found[0], np.uint8))
        numbers = (notes.requests, notes.reasoning, notes.replies, notes.tokens)
        rest = (notes.long_replies, notes.first_s, notes.last_s, registers.tobytes())
        self._connection.execute(_NOTE, (account, day, *numbers, *rest))
        if notes.arrivals:
            for ended, paused in pauses.settle(self._connection, account, notes.arrivals):
                self._connection.execute(_PAUSED, (account, ended, *paused))
        for reason, n in notes.reasons.items():
            self._connection.execute(_DECIDE, (account, day, reason, n))
        for (kind, digest), n in notes.traits.items():
            self._connection.execute(_TRAIT, (account, kind, digest, n, _MOST_TRAITS))

    def records(self) -> dict[str, Record]:
        """Return what is known, by account.

        Raises:
            AccountsDownError: The file cannot be read.
        """
        records: dict[str, Record] = {}
        with self._errors():
            for row in self._connection.execute("SELECT * FROM noted ORDER BY account, day"):
                _gather(records.setdefault(row[0], Record(row[0])), row)
            for account, reason, n in self._connection.execute(
                "SELECT account, reason, sum(n) FROM decided GROUP BY account, reason"
            ):
                records.setdefault(account, Record(account)).reasons[reason] = n
            for account, kind, digest, n in self._connection.execute("SELECT * FROM traits"):
                if account in records:
                    records[account].traits.setdefault(kind, {})[digest] = n
            for account, paused in pauses.pending(self._connection):
                if account in records:
                    _add_pauses(records[account], paused)
        return records

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as err:
            raise AccountsDownError(f"{self._path}: {err}; check the state folder") from err


def _add_pauses(record: Record, paused: pauses.Pauses) -> None:
    record.gaps += paused.number
    record.gap_seconds += paused.seconds
    record.gap_squares += paused.squares


def _gather(record: Record, row: tuple[object, ...]) -> None:
    """Add one day of an account."""
    _, day, requests, reasoning, replies, tokens, long_replies, gaps, *rest = row
    gap_seconds, gap_squares, first_s, last_s, registers = rest
    record.days[int(day)] = (int(requests), int(replies), int(tokens))  # type: ignore[call-overload]
    for name, value in (
        ("requests", requests), ("reasoning", reasoning), ("replies", replies), ("tokens", tokens),
        ("long_replies", long_replies), ("gaps", gaps), ("gap_seconds", gap_seconds),
        ("gap_squares", gap_squares),
    ):  # fmt: skip
        setattr(record, name, getattr(record, name) + value)
    if float(first_s) > 0:  # type: ignore[arg-type]
        record.first_s = min(record.first_s or float(first_s), float(first_s))  # type: ignore[arg-type]
    record.last_s = max(record.last_s, float(last_s))  # type: ignore[arg-type]
    stored = np.frombuffer(registers, np.uint8)  # type: ignore[call-overload]
    record.registers = sketch.merged(record.registers, stored)
