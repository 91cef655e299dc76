"""The writer: what is acknowledged, what is refused, and what a gap says."""

from __future__ import annotations

import errno
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from tests.support.disks import Disk
from watermark.errors import LedgerConfigError, LedgerUnavailableError
from watermark.ledger import (
    Beginning,
    Ending,
    Keeps,
    Kind,
    LedgerWriter,
    Outcome,
    State,
    WriterLimits,
    files_in,
    gap_of,
    read_file,
)
from watermark.ledger.files import check_sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def beginning(number: int = 0) -> Beginning:
    return Beginning(
        reply=number.to_bytes(16, "big"),
        account=None,
        conversation=bytes(16),
        key_id="k",
        unit="words/v1",
        tokenizer="tokenizer:sha256:00",
        model="m",
        path="splice",
    )


ENDING = Ending(outcome=Outcome.FINISH, n_tokens=3, n_bytes=9, digest=bytes(32))


def writer(folder: Path, *, vfs: str | None = None, **limits: Any) -> LedgerWriter:
    given = {"reserve_bytes": 0, "retry_s": 0.02} | limits
    return LedgerWriter(
        folder,
        "node",
        now=time.time,
        clock=time.monotonic,
        limits=WriterLimits(**given),
        contents=contents,
        vfs=vfs,
    )


BAD = b"its contents cannot be made"


def kept(contents: bytes) -> Any:
    """Stand in for an answer."""
    return contents


def contents(answers: Any) -> Any:
    if BAD in answers:
        raise ValueError
    return list(answers)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rows_of(folder: Path) -> list[Any]:
    return [row for name in files_in(folder) for row in read_file(folder / str(name)).rows]


def test_rows_are_durable_when_acknowledged_and_many_to_a_commit(tmp_path: Path) -> None:
    one = writer(tmp_path)
    begun = [one.begin(beginning(n)) for n in range(250)]
    ended = [one.end(beginning(n), ENDING, Keeps.CONTEXTS, kept(bytes([n]))) for n in range(250)]
    for ack in begun:
        ack.result(10)
    for receipt in ended:
        receipt.result(10)
    assert one.stats.rows == {Kind.BEGIN: 250, Kind.END: 250, Kind.GAP: 0}
    assert one.stats.commits < 50
    one.close()
    (name,) = files_in(tmp_path)
    found = read_file(tmp_path / str(name))
    assert found.is_closed
    assert found.is_whole
    assert [row.reply for row in found.rows[:250]] == [beginning(n).reply for n in range(250)]
    assert [row.contents for row in found.rows[250:]] == [bytes([n]) for n in range(250)]
    assert (tmp_path / str(name)).stat().st_mode & 0o777 == 0o600


def test_no_two_workers_have_one_place_and_numbers_go_on(tmp_path: Path) -> None:
    first, second = writer(tmp_path), writer(tmp_path)
    assert [str(name) for name in files_in(tmp_path)] == ["node_0_1.ledger", "node_1_1.ledger"]
    first.close()
    (tmp_path / "node_0_1.ledger").unlink()
    third = writer(tmp_path)
    assert third.path == tmp_path / "node_0_2.ledger"  # the first is missed, not written again
    second.close()
    third.close()


def test_a_file_ends_with_its_span(tmp_path: Path) -> None:
    clock = [0.0]
    one = LedgerWriter(
        tmp_path,
        "node",
        now=lambda: clock[0],
        clock=time.monotonic,
        limits=WriterLimits(reserve_bytes=0, file_s=10),
    )
    one.begin(beginning(1)).result(5)
    clock[0] = 11.0
    until(lambda: one.path == tmp_path / "node_0_2.ledger")
    clock[0] = 21.0  # nothing was written: the file stays
    one.begin(beginning(2)).result(5)
    one.close()
    assert len(files_in(tmp_path)) == 2
    assert [row.reply for row in rows_of(tmp_path)] == [beginning(n).reply for n in (1, 2)]


def test_contents_that_cannot_be_made_leave_the_row(tmp_path: Path) -> None:
    one = writer(tmp_path)
    acks = [one.end(beginning(), ENDING, Keeps.TOKENS, kept(b)) for b in (b"a", BAD, b"b")]
    for ack in acks:
        ack.result(5)
    one.close()
    assert [(row.n_tokens, row.contents) for row in rows_of(tmp_path)] == [
        (3, b"a"),
        (3, None),
        (3, b"b"),
    ]


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_after_an_error_nothing_is_tried_on_the_same_file(tmp_path: Path, operation: str) -> None:
    disk = Disk(f"fault-{operation}")
    one = writer(tmp_path, vfs=disk.name)
    one.begin(beginning(1)).result(5)
    broken = one.path
    assert broken is not None
    disk.fault = {operation: apsw.FullError if operation == "write" else apsw.IOError}
    refused = one.begin(beginning(2))
    ended = one.end(beginning(1), ENDING, Keeps.NONE, kept(b""))
    with pytest.raises(LedgerUnavailableError):
        refused.result(5)
    until(lambda: one.state is State.BROKEN)
    with pytest.raises(LedgerUnavailableError):
        one.begin(beginning(3))
    before = disk.files[str(broken)].live[:], disk.files[f"{broken}-wal"].live[:]
    assert not ended.done()
    disk.fault = {}
    ended.result(5)
    until(lambda: one.state is State.OPEN)
    assert before == (disk.files[str(broken)].live, disk.files[f"{broken}-wal"].live)
    one.begin(beginning(4)).result(5)
    one.close()
    for path, image in disk.files.items():
        if image.live:
            (tmp_path / Path(path).name).write_bytes(image.live)
    rows = rows_of(tmp_path)
    kinds = [(row.kind, row.reply and row.reply[-1]) for row in rows]
    assert kinds[0] == (Kind.BEGIN, 1)
    assert kinds[-3:] == [(Kind.GAP, None), (Kind.END, 1), (Kind.BEGIN, 4)]
    gap = gap_of(next(row for row in rows if row.kind == Kind.GAP))
    assert (gap.cause, gap.file, gap.refused, gap.lost) == ("write-error", broken.name, 2, 0)
    assert gap.since_us <= gap.until_us


def test_what_waits_is_bounded_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    disk = Disk("bounded")
    one = writer(tmp_path, vfs=disk.name, waiting_bytes=10_000)
    disk.fault = {"sync": apsw.IOError}
    acks = [one.end(beginning(n), ENDING, Keeps.TOKENS, kept(bytes(1000))) for n in range(20)]
    until(lambda: one.stats.lost == 14)
    disk.fault = {}
    until(lambda: one.state is State.OPEN)
    assert [ack.exception(5) is None for ack in acks] == [True] * 6 + [False] * 14
    one.close()
    for path, image in disk.files.items():
        (tmp_path / Path(path).name).write_bytes(image.live)
    (gap,) = [gap_of(row) for row in rows_of(tmp_path) if row.kind == Kind.GAP]
    assert gap.lost == 14


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_takes_the_ends_of_what_began(small_disk: Path) -> None:
    one = writer(small_disk, reserve_bytes=1 << 20)
    one.begin(beginning(1)).result(5)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2200 << 10))
    until(lambda: one.state is State.SHORT)
    with pytest.raises(LedgerUnavailableError, match="disk-full"):
        one.begin(beginning(2))
    one.end(beginning(1), ENDING, Keeps.NONE, kept(b"")).result(5)
    ballast.unlink()
    until(lambda: one.state is State.OPEN)
    one.begin(beginning(3)).result(5)
    one.close()
    rows = rows_of(small_disk)
    assert [row.kind for row in rows] == [Kind.BEGIN, Kind.END, Kind.GAP, Kind.BEGIN]
    assert gap_of(rows[2]).cause == "disk-full"


def test_what_waits_for_the_store_is_bounded(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    (outbox / "waiting.parquet").write_bytes(bytes(1 << 20))
    one = writer(tmp_path, folder_bytes=1 << 20)
    until(lambda: one.state is State.SHORT)
    with pytest.raises(LedgerUnavailableError, match="folder-full"):
        one.begin(beginning())
    assert one.stats.folder_bytes > 1 << 20
    one.end(beginning(), ENDING, Keeps.NONE, kept(b"")).result(5)
    one.close()
    assert [row.kind for row in rows_of(tmp_path)] == [Kind.END, Kind.GAP]


def test_a_disk_that_is_full_breaks_the_file_and_another_is_begun(small_disk: Path) -> None:
    one = writer(small_disk)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space") as failed:
        ballast.write_bytes(bytes(4 << 20))
    assert failed.value.errno == errno.ENOSPC
    acks = [one.end(beginning(n), ENDING, Keeps.TOKENS, kept(bytes(9000))) for n in range(100)]
    until(lambda: one.state is State.BROKEN)
    ballast.unlink()
    for ack in acks:
        ack.result(5)
    one.close()
    rows = rows_of(small_disk)
    assert {row.reply for row in rows if row.kind == Kind.END} == {
        beginning(n).reply for n in range(100)
    }
    assert [gap_of(row).cause for row in rows if row.kind == Kind.GAP] == ["write-error"]


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerConfigError, match="choose a writable one"):
        writer(tmp_path / "file")
    with pytest.raises(LedgerConfigError, match="is no name"):
        LedgerWriter(tmp_path, "a/b", now=time.time, clock=time.monotonic)


def test_an_old_sqlite_is_refused() -> None:
    check_sqlite("3.51.3")
    with pytest.raises(LedgerConfigError, match=r"SQLite 3\.40\.1 may lose rows"):
        check_sqlite("3.40.1")
