"""What was acknowledged survives a power cut; without syncs it would not."""

from __future__ import annotations

from benchmarks.ledger.power import run


def test_no_acknowledged_row_is_lost_and_there_is_no_hole() -> None:
    cuts = run(250)
    assert sum(cut.acknowledged for cut in cuts) > 5000
    assert not any(cut.lost or cut.has_hole or cut.has_other for cut in cuts)


def test_without_syncs_rows_are_lost() -> None:
    cuts = run(30, honors_sync=False)
    assert sum(cut.lost for cut in cuts) > 100
