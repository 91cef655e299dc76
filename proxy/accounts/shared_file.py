"""The SQLite file that all workers of a machine share, as each of its users opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from pathlib import Path


def open_shared(path: Path, schema: str, *, busy_ms: int) -> apsw.Connection:
    """Return a connection to the file, made where there is none, with its tables.

    Nothing is synced: a counter may be lost in a power cut, and what was delivered is the
    ledger's to know.

    Args:
        path: The file.
        schema: Statements that make the tables where they are missing.
        busy_ms: How long to wait for another process.

    Raises:
        apsw.Error: It cannot be opened.
    """
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(busy_ms)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "off")
    connection.execute(schema)
    return connection
