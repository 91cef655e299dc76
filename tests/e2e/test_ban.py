"""A ban on a real proxy: every running stream of the account ends, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks.ban import one_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_streams_end_within_a_second_of_the_ban(tmp_path: Path) -> None:
    seconds, _ = asyncio.run(asyncio.wait_for(one_run(tmp_path, 20, 2), 180))
    assert len(seconds) == 20 + 2  # a tenth more are passed through
    assert seconds.max() < 1.0
