"""Of many files each look takes the next few, and every change is found in its turn."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from watermark.keys import watch as watch_module
from watermark.keys.watch import Watch, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _swap(path: Path) -> None:
    path.with_name("new").write_text("0")
    path.with_name("new").replace(path)


class _Nothing:
    """A kernel that says nothing."""

    def follow(self, path: str) -> None: ...
    def keep(self, paths: object) -> None: ...
    def due(self) -> None: ...


@pytest.fixture
def _silent_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "Notices", _Nothing)


CHANGES: list[Callable[[Path], object]] = [
    lambda path: path.chmod(0o644),
    lambda path: path.write_text("another"),
    _swap,
    lambda path: path.unlink(),
]


@pytest.mark.usefixtures("_silent_kernel")
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_once_within_a_round(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    watch = _watch_of(tmp_path, 10)
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
    os.mkfifo(tmp_path / "b")  # looked at, never opened
    assert watch.look(10) == {"b"}


@pytest.mark.usefixtures("_silent_kernel")
@pytest.mark.parametrize("change", CHANGES)
def test_a_thorough_look_takes_all_where_nothing_is_said(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    watch = _watch_of(tmp_path, 10)
    change(tmp_path / "7")
    assert watch.look_thoroughly() == {"user 7"}
    assert watch.look_thoroughly() == set()


@pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("look", [Watch.look_thoroughly, lambda watch: watch.look(0)])
def test_what_the_kernel_says_is_looked_at_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    look: Callable[[Watch], set[str]],
) -> None:
    watch = _watch_of(tmp_path, 10)
    look(watch)  # the files were made after their folder was followed
    looked: list[str] = []

    def spy(path: str) -> tuple[int, ...]:
        looked.append(path)
        return stamp_of(path)

    monkeypatch.setattr(watch_module, "stamp_of", spy)
    assert look(watch) == set()
    change(tmp_path / "7")
    assert look(watch) == {"user 7"}
    assert set(looked) == {str(tmp_path / "7")}


def _watch_of(folder: Path, count: int) -> Watch:
    watch = Watch()
    for number in range(count):
        (folder / f"{number}").write_text("0")
        (folder / f"{number}").chmod(0o600)
        watch.add(str(folder / f"{number}"), f"user {number}")
    return watch
