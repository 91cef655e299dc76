"""Of many files each look takes the next few, and every change is found in its turn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from watermark.keys.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _swap(path: Path) -> None:
    path.with_name("new").write_text("0")
    path.with_name("new").replace(path)


CHANGES: list[Callable[[Path], object]] = [
    lambda path: path.chmod(0o644),
    lambda path: path.write_text("another"),
    _swap,
    lambda path: path.unlink(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_once_within_a_round(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    watch = Watch()
    for number in range(10):
        (tmp_path / f"{number}").write_text("0")
        (tmp_path / f"{number}").chmod(0o600)
        watch.add(str(tmp_path / f"{number}"), f"user {number}")
    watch.add(str(tmp_path / "7"), "another user")
    assert not set().union(*(watch.look(3) for _ in range(4)))
    change(tmp_path / "7")
    found = [watch.look(3) for _ in range(8)]
    assert set().union(*found[:4]) == {"user 7", "another user"}
    assert not set().union(*found[4:])


def test_nobody_is_told_of_files_that_nobody_uses(tmp_path: Path) -> None:
    watch = Watch()
    for name in "ab":
        watch.add(str(tmp_path / name), name)
    watch.keep(["b"])
    (tmp_path / "a").touch()
    assert watch.look(10) == set()
    assert len(watch) == 1
    os.mkfifo(tmp_path / "b")  # looked at, never opened
    assert watch.look(10) == {"b"}
