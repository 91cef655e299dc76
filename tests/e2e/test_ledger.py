"""Real processes that are stopped and killed in mid-stream, held against their ledger."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.ledger.kills import LedgerStage, run
from watermark.ledger.reading import verify_node
from watermark.ledger.store import SegmentStore, header_name

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_every_reply_is_accounted_for_or_open(tmp_path: Path) -> None:
    *_, tally = run(tmp_path / "stage", rounds=4, n_streams=20)
    assert tally.streams > 40
    assert (tally.missing, tally.wrong) == (0, 0)
    assert tally.ended >= 20  # of those that were told to stop
    assert tally.open > 0
    assert tally.gaps >= 2


@pytest.mark.slow
def test_a_proxy_seals_by_itself(tmp_path: Path) -> None:
    stage = LedgerStage(tmp_path / "stage", np.random.default_rng(1), workers=2)
    stage.write_keys(stage.make_key("first"))
    stage.make_ledger(reserve_mib=0, more='store = "segments"\nsegment_seconds = 1.0\n')

    async def work() -> int:
        async with stage.load(4, tokens=8) as replies:
            await asyncio.sleep(6)
        return sum(reply.status == 200 for reply in replies)

    with stage.serving():
        n_replies = asyncio.run(work())
        store = SegmentStore(stage.settings().store)
        await_segments(store, stage)
    (node,) = store.nodes()
    verified = verify_node(store, node, stage.settings().verifier)
    assert verified.headers
    assert 0 < verified.ends <= n_replies
    assert verified.gaps == ()


def await_segments(store: SegmentStore, stage: LedgerStage) -> None:
    """Wait until a segment is in the store."""
    deadline = time.monotonic() + 60
    while not store.nodes() or not store.read(store.nodes()[0], header_name(1)):
        assert time.monotonic() < deadline, stage.log.read_text()
        time.sleep(0.2)
