"""The one writer of a process: rows in, durable rows out, many to a commit.

Rule 1: an acknowledgment means that the row is on the disk. Rule 2: after an error of the disk the
file is abandoned; nothing is tried on it again. Another file is begun, and its first row says what
is missing. Rule 3: while no file can be written no reply may begin; ends wait in memory, up to a
bound, and what goes beyond it is counted in the gap. Rule 4: where space runs short no reply may
begin, while there is still room for the ends of those under way.

Source: `watermark/spec/ledger.md`, When it cannot be written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import structs

from watermark.errors import LedgerFileError, LedgerUnavailableError
from watermark.ledger.files import LedgerFile
from watermark.ledger.limits import State, WriterLimits, WriterStats
from watermark.ledger.rows import Gap, Kind, Row
from watermark.ledger.seats import Seat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from watermark.ledger.contents import Answer
    from watermark.ledger.rows import Beginning, Ending, Keeps

MAX_COMMIT_ROWS: Final = 1000
_ROW_BYTES: Final = 512  # of a row in memory beside its contents
_IDLE_S: Final = 0.25  # how soon a disk that fills up is noticed
_SCAN_S: Final = 5.0

logger = logging.getLogger(__name__)

Contents: TypeAlias = "Callable[[Sequence[Answer]], list[bytes | None]]"


@dataclass(slots=True, eq=False)
class _Job:
    """A row that is to be written; an end's contents are made with those of its commit."""

    row: Row
    answer: Answer | None = None
    done: Future[None] = field(default_factory=Future)

    def __post_init__(self) -> None:
        """Keep whoever waits from cancelling what is written all the same."""
        self.done.set_running_or_notify_cancel()

    @property
    def is_end(self) -> bool:
        """Whether it is of a reply that has left."""
        return self.row.kind == Kind.END


class LedgerWriter:
    """Writes one process's rows, on a thread of its own.

    Args:
        folder: The ledger's folder, which is made.
        node: The machine's name.
        now: Seconds since 1970.
        clock: Monotonic seconds.
        limits: When to commit, and what may be used up.
        contents: Makes what is kept of the answers of a commit, on the writer's thread.
        vfs: SQLite's name of the file system; None for the machine's.

    Raises:
        LedgerConfigError: The folder cannot be used.
        LedgerFileError: No file can be made there.
    """

    def __init__(
        self,
        folder: Path,
        node: str,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        limits: WriterLimits | None = None,
        contents: Contents = lambda answers: [None] * len(answers),
        vfs: str | None = None,
    ) -> None:
        self.limits = limits or WriterLimits()
        self._now = now
        self._clock = clock
        self._contents = contents
        self._vfs = vfs
        self._seat = Seat(folder, node)
        self._jobs: deque[_Job] = deque()
        self._waiting: deque[_Job] = deque()
        self._waiting_bytes = 0
        self._wake = threading.Condition()
        self._is_closing = self._is_closed = False
        self._state = State.OPEN
        self._outage: Gap | None = None
        self._refused = 0
        self._stats = WriterStats(rows=dict.fromkeys(Kind, 0))
        self._next_try = self._next_scan = 0.0
        self._file: LedgerFile | None = None
        try:
            self._file = self._new_file()
        except LedgerFileError:
            self._seat.leave()
            raise
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def state(self) -> State:
        """Whether it can write."""
        return self._state

    @property
    def path(self) -> Path | None:
        """The file being written."""
        return None if self._file is None else self._file.path

    @property
    def stats(self) -> WriterStats:
        """What it has done so far."""
        with self._wake:
            waiting = len(self._jobs) + len(self._waiting)
            return replace(self._stats, rows=dict(self._stats.rows), waiting=waiting)

    def begin(self, beginning: Beginning) -> Future[None]:
        """Write that a reply begins.

        Returns:
            Done once the row is durable, or with `LedgerUnavailableError`; until then no marked
            byte may leave.

        Raises:
            LedgerUnavailableError: Nothing can be written now.
        """
        row = beginning.row(self._now_us())
        with self._wake:
            if self._state is not State.OPEN or self._is_closing:
                self._refuse()
                raise LedgerUnavailableError(self._reason())
        return self._submit(_Job(row))

    def end(
        self,
        begun: Beginning,
        ending: Ending,
        keeps: Keeps,
        answer: Answer,
    ) -> Future[None]:
        """Write what was handed over of a reply.

        Args:
            begun: How it began.
            ending: How it ended.
            keeps: What the contents are.
            answer: What they are made of.

        Returns:
            Done once the row is durable.
        """
        row = ending.row(self._now_us(), begun, keeps, None)
        return self._submit(_Job(row, answer))

    def close(self) -> None:
        """Write what waits, say that nothing is missing, and give the place up."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()
        self._seat.leave()

    def _submit(self, job: _Job) -> Future[None]:
        with self._wake:
            if self._is_closed:
                job.done.set_exception(LedgerUnavailableError(self._reason()))
                return job.done
            self._jobs.append(job)
            if len(self._jobs) in (1, self.limits.rows):
                self._wake.notify()
        return job.done

    def _run(self) -> None:
        while True:
            jobs = self._take()
            self._look_after()
            if jobs:
                self._commit(jobs)
            with self._wake:
                self._is_closed = self._is_closing and not self._jobs
            if self._is_closed:
                break
        self._finish()

    def _take(self) -> list[_Job]:
        """Wait for rows, then a little for more; nothing where none came for a while."""
        limits = self.limits
        with self._wake:
            if not self._jobs and not self._is_closing:
                self._wake.wait(_IDLE_S)
            if not self._jobs:
                return []
            if len(self._jobs) < limits.rows and not self._is_closing:
                self._wake.wait_for(
                    lambda: len(self._jobs) >= limits.rows or self._is_closing, limits.linger_s
                )
            count = min(len(self._jobs), MAX_COMMIT_ROWS)
            return [self._jobs.popleft() for _ in range(count)]

    def _commit(self, jobs: list[_Job]) -> None:
        """Make the rows durable, or keep what can be kept for another file."""
        if self._file is None:
            self._set_aside(jobs)
            return
        try:
            self._append(self._file, self._made(jobs))
        except LedgerFileError as err:
            self._break(err)
            self._set_aside(jobs)
            return
        for job in jobs:
            job.done.set_result(None)

    def _made(self, jobs: list[_Job]) -> list[Row]:
        """Return the rows, with the contents of ends; those cost the answer one time."""
        ends = [(job, job.answer) for job in jobs if job.answer is not None]
        try:
            made = self._contents([answer for _, answer in ends])
        except Exception:  # noqa: BLE001 - one answer's fault is not the others'
            made = [self._made_alone(answer) for _, answer in ends]
        for (job, _), contents in zip(ends, made, strict=True):
            job.row, job.answer = job.row._replace(contents=contents), None
        return [job.row for job in jobs]

    def _made_alone(self, answer: Answer) -> bytes | None:
        """Return one answer's contents; an end without them is better than none."""
        try:
            return self._contents([answer])[0]
        except Exception as err:  # noqa: BLE001 - whatever it is, the row is written
            name = type(err).__name__  # its text may be a caller's
            logger.error("the contents of a reply cannot be kept: %s", name)  # noqa: TRY400
            return None

    def _append(self, file: LedgerFile, rows: list[Row]) -> None:
        start = self._clock()
        file.append(rows)
        spent = self._clock() - start
        with self._wake:
            counts = self._stats.rows
            for row in rows:
                counts[Kind(row.kind)] += 1
            self._stats = replace(
                self._stats,
                commits=self._stats.commits + 1,
                commit_seconds=self._stats.commit_seconds + spent,
            )

    def _set_aside(self, jobs: list[_Job]) -> None:
        """Refuse beginnings; keep ends in memory as far as they may go."""
        self._made(jobs)
        for job in jobs:
            if not job.is_end:
                with self._wake:
                    self._refuse()
                job.done.set_exception(LedgerUnavailableError(self._reason()))
                continue
            size = _ROW_BYTES + len(job.row.contents or b"")
            if self._waiting_bytes + size > self.limits.waiting_bytes:
                self._lose(job)
                continue
            self._waiting.append(job)
            self._waiting_bytes += size

    def _lose(self, job: _Job) -> None:
        """Count an end that nobody will read: its reply stays open."""
        if self._outage is not None:
            self._outage = structs.replace(self._outage, lost=self._outage.lost + 1)
        with self._wake:
            self._stats = replace(self._stats, lost=self._stats.lost + 1)
        job.done.set_exception(LedgerUnavailableError(self._reason()))

    def _look_after(self) -> None:
        """Begin another file where it is time, or where the last one broke; look at the space."""
        if self._file is None:
            if self._clock() >= self._next_try or self._is_closing:
                self._try_again()
            return
        if self._span() != self._file_span:
            self._rotate(self._file)
        self._look_at_space()

    def _rotate(self, file: LedgerFile) -> None:
        if not file.n_rows:  # it may as well serve the next span
            self._file_span = self._span()
            return
        try:
            file.close(self._now_us())
            self._file = self._new_file()
        except LedgerFileError as err:
            self._break(err)

    def _new_file(self) -> LedgerFile:
        self._file_span = self._span()
        return LedgerFile(self._seat.next_file(), vfs=self._vfs)

    def _span(self) -> int:
        return int(self._now() // self.limits.file_s)

    def _break(self, err: LedgerFileError) -> None:
        """Let the file go as it lies; nothing begins until there is another."""
        name = ""
        if self._file is not None:
            self._file.abandon()
            name = self._file.path.name
        self._file = None
        self._next_try = self._clock() + self.limits.retry_s
        logger.error("the ledger cannot be written: %s", err)
        self._leave_open(State.BROKEN, Gap(cause="write-error", file=name, detail=_detail(err)))

    def _leave_open(self, state: State, gap: Gap) -> None:
        with self._wake:
            if self._outage is None:
                self._outage = structs.replace(gap, since_us=self._now_us())
                self._refused = 0
                self._stats = replace(self._stats, gaps=self._stats.gaps + 1)
            elif state is State.BROKEN:
                self._outage = structs.replace(
                    self._outage, cause=gap.cause, file=gap.file, detail=gap.detail
                )
            self._state = state

    def _try_again(self) -> None:
        """Begin another file with the gap and all that waits."""
        self._next_try = self._clock() + self.limits.retry_s
        file = None
        jobs = list(self._waiting)
        try:
            file = self._new_file()
            self._append(file, [self._gap_row(), *(job.row for job in jobs)])
        except LedgerFileError as err:
            if file is not None:
                file.abandon()
            logger.warning("the ledger still cannot be written: %s", err)
            return
        self._file = file
        self._waiting.clear()
        self._waiting_bytes = 0
        self._reopen()
        for job in jobs:
            job.done.set_result(None)

    def _look_at_space(self) -> None:
        """Refuse beginnings where space runs short; say so in a row once it is there again."""
        cause = self._shortage()
        if cause and self._state is State.OPEN:
            logger.error("the ledger takes no further reply: %s in %s", cause, self._seat.folder)
            self._leave_open(State.SHORT, Gap(cause=cause))
        elif not cause and self._state is State.SHORT and self._file is not None:
            try:
                self._append(self._file, [self._gap_row()])
            except LedgerFileError as err:
                self._break(err)
                return
            self._reopen()

    def _shortage(self) -> str:
        """Return what is short; empty for nothing."""
        if self._vfs is not None:
            return ""  # its space is not this machine's
        try:
            space = os.statvfs(self._seat.folder)
            if self._clock() >= self._next_scan:
                self._next_scan = self._clock() + _SCAN_S
                held = _bytes_in(self._seat.folder, self._seat.folder / "outbox")
                with self._wake:
                    self._stats = replace(self._stats, folder_bytes=held)
        except OSError:
            return ""  # a write will tell
        if space.f_bavail * space.f_frsize < self.limits.reserve_bytes:
            return "disk-full"
        return "folder-full" if self._stats.folder_bytes > self.limits.folder_bytes else ""

    def _gap_row(self) -> Row:
        gap = self._outage or Gap(cause="write-error")
        now = self._now_us()
        return structs.replace(gap, until_us=now, refused=self._refused).row(now)

    def _reopen(self) -> None:
        logger.warning("the ledger can be written again")
        with self._wake:
            self._state = State.OPEN
            self._outage = None

    def _refuse(self) -> None:
        self._refused += 1
        self._stats = replace(self._stats, refused=self._stats.refused + 1)

    def _finish(self) -> None:
        """Close the file; what still waits is lost, and its replies stay open."""
        if self._file is not None:
            try:
                if self._outage is not None:
                    self._append(self._file, [self._gap_row()])
                self._file.close(self._now_us())
            except LedgerFileError as err:
                self._break(err)
        if self._waiting:
            logger.error("%d ends could not be kept; their replies stay open", len(self._waiting))
        for job in self._waiting:
            job.done.set_exception(LedgerUnavailableError(self._reason()))

    def _reason(self) -> str:
        cause = "it is closed" if self._outage is None else self._outage.cause
        return f"the ledger cannot be written ({cause}); see the service's log"

    def _now_us(self) -> int:
        return int(self._now() * 1e6)


def _bytes_in(*folders: Path) -> int:
    """Return the size of the files in some folders; one that is not there is empty."""
    total = 0
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):  # a file may go while it is looked at
            total += sum(one.stat().st_size for one in os.scandir(folder) if one.is_file())
    return total


def _detail(err: LedgerFileError) -> str:
    """Return what the system called an error, without the path."""
    return str(err).rpartition(": ")[2].partition(";")[0]
