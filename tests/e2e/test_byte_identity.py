"""The benchmark of byte identity, small."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.byte_identity.__main__ import run

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_not_marked_is_the_upstreams_byte_for_byte(tmp_path: Path) -> None:
    rows = asyncio.run(run(tmp_path, replies=120, bodies=80, seed=1))
    *_, whole, control = rows
    assert whole == ["all", "200", "200", "200"]
    assert control[2] == "0"
