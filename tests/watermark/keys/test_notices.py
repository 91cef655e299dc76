"""Whatever changes the file behind a path is noticed, without a look at any file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from watermark.keys.notices import Notices

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs inotify")


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """Return a folder of secrets as Kubernetes mounts it: links to links to files."""
    for version in ("v1", "v2"):
        (tmp_path / "secrets" / f"..{version}").mkdir(parents=True)
        (tmp_path / "secrets" / f"..{version}" / "a.key").write_text(version)
    (tmp_path / "secrets" / "..data").symlink_to("..v1")
    (tmp_path / "secrets" / "a.key").symlink_to("..data/a.key")
    (tmp_path / "secrets" / "b.key").write_text("b")
    return tmp_path / "secrets"


def _swap(folder: Path) -> None:
    (folder / "..new").symlink_to("..v2")
    (folder / "..new").replace(folder / "..data")


CHANGES: dict[str, Callable[[Path], object]] = {
    "contents": lambda folder: (folder / "..v1" / "a.key").write_text("changed"),
    "mode": lambda folder: (folder / "..v1" / "a.key").chmod(0o644),
    "removed": lambda folder: (folder / "..v1" / "a.key").unlink(),
    "swap of a link on the way": _swap,
    "its own link": lambda folder: (folder / "a.key").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_on_the_way_to_a_file_is_noticed(
    mounted: Path, change: Callable[[Path], object]
) -> None:
    notices = Notices()
    notices.follow(str(mounted / "a.key"))
    notices.follow(str(mounted / "b.key"))
    assert notices.due() == set()
    change(mounted)
    assert notices.due() == {str(mounted / "a.key")}
    assert notices.due() == set()


def test_a_path_is_followed_to_where_its_links_lead_now(mounted: Path) -> None:
    notices = Notices()
    notices.follow(str(mounted / "a.key"))
    _swap(mounted)
    assert notices.due() == {str(mounted / "a.key")}
    (mounted / "..v2" / "a.key").write_text("changed")
    assert notices.due() == {str(mounted / "a.key")}


@pytest.mark.parametrize("depth", [0, 1])
def test_a_folder_that_is_moved_away_makes_everything_due(mounted: Path, depth: int) -> None:
    notices = Notices()
    notices.follow(str(mounted / "b.key"))
    moved = (mounted, mounted.parent)[depth]
    moved.rename(moved.with_name("elsewhere"))
    assert notices.due() is None


def test_the_rest_of_a_folder_is_nobodys_concern(mounted: Path) -> None:
    notices = Notices()
    for name in ("a.key", "b.key"):
        notices.follow(str(mounted / name))
    notices.keep([str(mounted / "a.key")])
    (mounted / "b.key").write_text("changed")
    (mounted / "c.key").write_text("new")
    assert notices.due() == set()


def test_a_folder_that_is_missing_ends_in_everything_due(tmp_path: Path) -> None:
    notices = Notices()
    notices.follow(str(tmp_path / "nowhere" / "a.key"))
    assert notices.due() is None


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    notices = Notices()
    notices.follow(str(tmp_path / "a"))
    (tmp_path / "b").unlink()
    assert notices.due() == {str(tmp_path / "a")}


def test_a_queue_that_ran_over_makes_everything_due(mounted: Path) -> None:
    notices = Notices()
    notices.follow(str(mounted / "b.key"))
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(most // 2 + 2):  # a change of mode back and forth is two events
        (mounted / "b.key").chmod(0o600 if number % 2 else 0o640)
        (mounted / "..v1").chmod(0o700 if number % 2 else 0o750)
    assert notices.due() is None
    (mounted / "b.key").write_text("changed")
    assert notices.due() == {str(mounted / "b.key")}


def test_both_sides_of_a_fork_are_told(mounted: Path) -> None:
    notices = Notices()
    notices.follow(str(mounted / "b.key"))
    pid = os.fork()
    if pid == 0:
        is_all = notices.due() is None
        (mounted / "b.key").write_text("changed")
        os._exit(not (is_all and notices.due() == {str(mounted / "b.key")}))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert notices.due() == {str(mounted / "b.key")}
