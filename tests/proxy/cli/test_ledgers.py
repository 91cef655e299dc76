"""The ledger beside a serving process: what sealing tells its metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.cli import ledgers
from proxy.cli.ledgers import LedgerOpener
from proxy.telemetry.metrics import Metrics
from tests.support.ledgers import make_settings
from tests.support.servers import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_failed_sealing_is_counted_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def seal(_: LedgerOpener) -> str:
        return await answers.get()

    def shows(*lines: str) -> bool:
        text = metrics.exposition().decode()
        return all(f"\nwatermark_ledger_{line}\n" in text for line in lines)

    async def work() -> None:
        async with LedgerOpener(settings=make_settings(tmp_path)).sealing(metrics):
            assert b"watermark_ledger_last_seal" not in metrics.exposition()
            for error in ("the store is away", "the store is away"):
                answers.put_nowait(error)
            await eventually(lambda: shows("last_seal_success 0.0", "seal_failures_total 2.0"))
            answers.put_nowait("")
            await eventually(lambda: shows("last_seal_success 1.0", "seal_failures_total 2.0"))

    monkeypatch.setattr(LedgerOpener, "_seal", seal)
    monkeypatch.setattr(ledgers, "_LEAST_SECONDS", 0.01)
    monkeypatch.setattr(ledgers, "_MOST_SECONDS", 0.01)
    asyncio.run(work())
