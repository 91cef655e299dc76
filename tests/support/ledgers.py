"""Ledgers for tests: on a folder or on a disk that can fail."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watermark.ledger import (
    Keeps,
    Kind,
    Ledger,
    LedgerSettings,
    Row,
    WriterLimits,
    create_ledger,
    files_in,
    read_file,
)

if TYPE_CHECKING:
    from tests.support.disks import Disk


def make_settings(folder: Path, keeps: Keeps = Keeps.CONTEXTS, **limits: Any) -> LedgerSettings:
    """Make a ledger with fixed secrets; nothing of it is open yet."""
    settings = create_ledger(
        folder / "LEDGER.toml",
        name="test.invalid/ledger",
        secret=b"s" * 32,
        seed=b"e" * 32,
        keeps=keeps,
    )
    given = {"reserve_bytes": 0, "retry_s": 0.05} | limits
    return replace(settings, node="node", limits=WriterLimits(**given))


def open_ledger(settings: LedgerSettings, disk: Disk | None = None) -> Ledger:
    """Open a ledger with the machine's clocks."""
    return Ledger(
        settings,
        machine="machine",
        now=time.time,
        clock=time.monotonic,
        entropy=secrets.token_bytes,
        vfs=None if disk is None else disk.name,
    )


def rows_in(settings: LedgerSettings, disk: Disk | None = None) -> list[Row]:
    """Return all rows, once the ledger is closed."""
    if disk is not None:
        for path, image in disk.files.items():
            (settings.rows / Path(path).name).write_bytes(image.live)
    return [
        row for name in files_in(settings.rows) for row in read_file(settings.rows / str(name)).rows
    ]


def by_kind(rows: list[Row]) -> dict[Kind, list[Row]]:
    """Return the rows of each kind."""
    return {kind: [row for row in rows if row.kind == kind] for kind in Kind}
