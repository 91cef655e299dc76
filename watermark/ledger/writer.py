"""The one writer of a process: rows in, durable rows out, many to a commit.

Rule 1: an acknowledgment means that the row is on the disk. Rule 2: after an error of the disk the
file is abandoned; nothing is tried on it again. Another file is begun, and its first row says what
is missing. Rule 3: while no file can be written no reply may begin; ends wait in memory, up to a
bound, and what goes beyond it is counted in the gap. Rule 4: where space runs short no reply may
begin, while there is still room for the ends of those under way.

Source: `watermark/spec/ledger.md`, When it cannot be written.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from msgspec import structs

from watermark.errors import LedgerFileError, LedgerUnavailableError
from watermark.ledger.files import LedgerFile
from watermark.ledger.jobs import Ack, Job, Receipt, settle
from watermark.ledger.limits import State, WriterLimits, WriterStats
from watermark.ledger.queue import JobQueue
from watermark.ledger.rows import Gap, Kind, Row
from watermark.ledger.seats import Seat
from watermark.ledger.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from watermark.ledger.contents import Answer
    from watermark.ledger.jobs import Contents
    from watermark.ledger.rows import Beginning, Ending, Keeps

_ROW_BYTES: Final = 512  # of a row in memory beside its contents
_IDLE_S: Final = 0.25  # how soon a disk that fills up is noticed

logger = logging.getLogger(__name__)


class LedgerWriter:
    """Writes one process's rows, on a thread of its own.

    Args:
        folder: The ledger's folder, which is made.
        node: The machine's name.
        now: Seconds since 1970.
        clock: Monotonic seconds.
        limits: When to commit, and what may be used up.
        contents: Makes what is kept of some answers, on a thread of its own.
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
        self._vfs = vfs
        self._seat = Seat(folder, node)
        # A file system of SQLite's own has not the machine's space.
        self._space = Space(folder, self.limits, clock) if vfs is None else None
        self._waiting: deque[Job] = deque()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._settled = threading.Condition()
        self._is_closing = False
        self._state = State.OPEN
        self._outage: Gap | None = None
        self._refused = 0
        self._stats = WriterStats(rows=dict.fromkeys(Kind, 0))
        self._next_try = 0.0
        self._file: LedgerFile | None = None
        try:
            self._file = self._new_file()
        except LedgerFileError:
            self._seat.leave()
            raise
        self._queue = JobQueue(contents, self.limits)
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
        with self._lock:
            waiting = len(self._queue) + len(self._waiting)
            held = 0 if self._space is None else self._space.held
            return replace(
                self._stats, rows=dict(self._stats.rows), waiting=waiting, folder_bytes=held
            )

    def begin(self, beginning: Beginning) -> Future[None]:
        """Write that a reply begins.

        Returns:
            Done once the row is durable, or with `LedgerUnavailableError`; until then no marked
            byte may leave.

        Raises:
            LedgerUnavailableError: Nothing can be written now.
        """
        row = beginning.row(self._now_us())
        with self._lock:
            if self._state is not State.OPEN or self._is_closing:
                self._refuse()
                raise LedgerUnavailableError(self._reason())
        ack = Ack()
        self._submit(Job(row, ack))
        return ack

    def end(
        self,
        begun: Beginning,
        ending: Ending,
        keeps: Keeps,
        answer: Answer,
    ) -> Receipt:
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
        receipt = Receipt(self._settled)
        self._submit(Job(row, receipt, answer))
        return receipt

    def close(self) -> None:
        """Write what waits, say that nothing is missing, and give the place up."""
        with self._lock:
            self._is_closing = True
        self._queue.close()
        self._thread.join()
        self._seat.leave()

    def _submit(self, job: Job) -> None:
        if not self._queue.put(job):
            self._refuse_jobs([job])

    def _run(self) -> None:
        while not self._queue.has_ended():
            jobs = self._queue.take(_IDLE_S)
            self._look_after()
            if jobs:
                self._commit(jobs)
        self._finish()

    def _commit(self, jobs: list[Job]) -> None:
        """Make the rows durable, or keep what can be kept for another file."""
        if self._file is None:
            self._set_aside(jobs)
            return
        try:
            self._append(self._file, [job.row for job in jobs])
        except LedgerFileError as err:
            self._break(err)
            self._set_aside(jobs)
            return
        settle(jobs, self._settled)

    def _append(self, file: LedgerFile, rows: list[Row]) -> None:
        start = self._clock()
        file.append(rows)
        spent = self._clock() - start
        kinds = Counter(row.kind for row in rows)
        with self._lock:
            for kind in Kind:
                self._stats.rows[kind] += kinds[kind]
            self._stats = replace(
                self._stats,
                commits=self._stats.commits + 1,
                commit_seconds=self._stats.commit_seconds + spent,
            )

    def _set_aside(self, jobs: list[Job]) -> None:
        """Refuse beginnings; keep ends in memory as far as they may go."""
        for job in jobs:
            if not job.is_end:
                with self._lock:
                    self._refuse()
                self._refuse_jobs([job])
                continue
            size = _ROW_BYTES + len(job.row.contents or b"")
            if self._waiting_bytes + size > self.limits.waiting_bytes:
                self._lose(job)
                continue
            self._waiting.append(job)
            self._waiting_bytes += size

    def _lose(self, job: Job) -> None:
        """Count an end that nobody will read: its reply stays open."""
        if self._outage is not None:
            self._outage = structs.replace(self._outage, lost=self._outage.lost + 1)
        with self._lock:
            self._stats = replace(self._stats, lost=self._stats.lost + 1)
        self._refuse_jobs([job])

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
        with self._lock:
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
        settle(jobs, self._settled)

    def _look_at_space(self) -> None:
        """Refuse beginnings where space runs short; say so in a row once it is there again."""
        cause = self._space.shortage() if self._space is not None else ""
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

    def _gap_row(self) -> Row:
        gap = self._outage or Gap(cause="write-error")
        now = self._now_us()
        return structs.replace(gap, until_us=now, refused=self._refused).row(now)

    def _reopen(self) -> None:
        logger.warning("the ledger can be written again")
        with self._lock:
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
        self._refuse_jobs(self._waiting)

    def _refuse_jobs(self, jobs: Iterable[Job]) -> None:
        settle(jobs, self._settled, LedgerUnavailableError(self._reason()))

    def _reason(self) -> str:
        cause = "it is closed" if self._outage is None else self._outage.cause
        return f"the ledger cannot be written ({cause}); see the service's log"

    def _now_us(self) -> int:
        return int(self._now() * 1e6)


def _detail(err: LedgerFileError) -> str:
    """Return what the system called an error, without the path."""
    return str(err).rpartition(": ")[2].partition(";")[0]
