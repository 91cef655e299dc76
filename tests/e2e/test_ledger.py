"""Real processes that are stopped and killed in mid-stream, held against their ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.ledger.kills import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_every_reply_is_accounted_for_or_open(tmp_path: Path) -> None:
    tally = run(tmp_path / "stage", rounds=4, n_streams=20)
    assert tally.streams > 40
    assert (tally.missing, tally.wrong) == (0, 0)
    assert tally.ended >= 20  # of those that were told to stop
    assert tally.open > 0
    assert tally.gaps >= 2
