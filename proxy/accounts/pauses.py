"""The pauses between an account's requests, whichever workers these came to.

A worker alone sees every n-th request of a steady caller, and pauses that look like chance. So
each tells when requests came, and the pauses are taken of all of them in order. Rule 1: an arrival
becomes a pause once it is `_SETTLED_S` old, as every worker has told by then; one that is later
still is one pause too many. Rule 2: of what has become pauses one arrival is kept for each
account, the last, from which the next pause counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import apsw

DAY_S: Final = 86_400
LONGEST_S: Final = 600.0  # a longer one is a rest, no rhythm
_SETTLED_S: Final = 10.0  # workers tell every second
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS arrivals (account TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS arrivals_in_order ON arrivals (account, at);
"""
_NOTE: Final = "INSERT INTO arrivals VALUES (?, ?)"
_SETTLED: Final = """
SELECT day, count(*), sum(gap), sum(gap * gap) FROM (
    SELECT CAST(at / ?4 AS INTEGER) AS day, at - lag(at) OVER (ORDER BY at, rowid) AS gap
    FROM arrivals WHERE account = ?1 AND at <= ?2
) WHERE gap < ?3 GROUP BY day
"""
_PENDING: Final = """
SELECT account, count(*), sum(gap), sum(gap * gap) FROM (
    SELECT account, at - lag(at) OVER (PARTITION BY account ORDER BY at, rowid) AS gap FROM arrivals
) WHERE gap < ?1 GROUP BY account
"""
_FORGET: Final = """
DELETE FROM arrivals WHERE account = ?1 AND at <= ?2 AND rowid <> (
    SELECT rowid FROM arrivals WHERE account = ?1 AND at <= ?2 ORDER BY at DESC, rowid DESC LIMIT 1
)
"""


class Pauses(NamedTuple):
    """Some pauses, as far as their spread needs them.

    Attributes:
        number: How many.
        seconds: Their sum.
        squares: The sum of their squares.
    """

    number: int
    seconds: float
    squares: float


def settle(
    connection: apsw.Connection, account: str, arrivals: Sequence[float]
) -> list[tuple[int, Pauses]]:
    """Write down when requests came; return the pauses that are settled by now, by day.

    Args:
        connection: The shared file, in a transaction.
        account: Whose requests.
        arrivals: When they came, in seconds since the epoch; at least one.

    Raises:
        apsw.Error: The file cannot be written.
    """
    connection.executemany(_NOTE, [(account, at) for at in arrivals])
    settled = (account, max(arrivals) - _SETTLED_S)
    found: list[Any] = connection.execute(_SETTLED, (*settled, LONGEST_S, DAY_S)).fetchall()
    connection.execute(_FORGET, settled)
    return [(day, Pauses(*numbers)) for day, *numbers in found]


def pending(connection: apsw.Connection) -> Iterator[tuple[str, Pauses]]:
    """Yield the pauses between what is not settled yet, by account.

    Raises:
        apsw.Error: The file cannot be read.
    """
    rows: Iterator[Any] = connection.execute(_PENDING, (LONGEST_S,))
    yield from ((account, Pauses(*numbers)) for account, *numbers in rows)


def forget(connection: apsw.Connection, before_day: int) -> None:
    """Delete the arrivals before a day, in days since the epoch.

    Raises:
        apsw.Error: The file cannot be written.
    """
    connection.execute("DELETE FROM arrivals WHERE at < ?", (before_day * DAY_S,))
