"""Rows between those who hand them over and the writer.

Rule 1: they leave in the order in which they came. Rule 2: what ends keep is made here, on a thread
of its own: the next commit's contents while the last commit syncs. Rule 3: nothing that was taken
in is dropped; once all of it has left after `close`, nothing is taken in.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from watermark.ledger.jobs import make_contents

if TYPE_CHECKING:
    from watermark.ledger.jobs import Contents, Job
    from watermark.ledger.limits import WriterLimits

MAX_COMMIT_ROWS: Final = 1000


class JobQueue:
    """Takes rows in, makes the contents of ends, and gives both out many at a time.

    Args:
        contents: Makes what is kept of some answers.
        limits: How long, and for how many, a row waits for others.
    """

    def __init__(self, contents: Contents, limits: WriterLimits) -> None:
        self._contents = contents
        self._limits = limits
        self._came: deque[Job] = deque()
        self._made: deque[Job] = deque()
        self._n_held = 0  # those whose contents are being made included
        self._has_come = threading.Condition()
        self._has_made = threading.Condition()
        self._is_closing = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="ledger-contents", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Return how many rows are held."""
        return self._n_held

    def put(self, job: Job) -> bool:
        """Take a row in; return whether it was: nothing is once the queue has ended."""
        with self._has_come:
            if self._is_closed:
                return False
            self._came.append(job)
            self._n_held += 1
            if len(self._came) in (1, self._limits.rows):
                self._has_come.notify()
        return True

    def take(self, timeout_s: float) -> list[Job]:
        """Return rows in order, with their contents; none where none came for so long."""
        with self._has_made:
            if not self._made and not self._is_closed:
                self._has_made.wait(timeout_s)
            jobs = [self._made.popleft() for _ in range(min(len(self._made), MAX_COMMIT_ROWS))]
        with self._has_come:
            self._n_held -= len(jobs)
        return jobs

    def close(self) -> None:
        """Let nothing linger, and end once all has left."""
        with self._has_come:
            self._is_closing = True
            self._has_come.notify()

    def has_ended(self) -> bool:
        """Return whether nothing is held, and nothing will be."""
        with self._has_made:
            return self._is_closed and not self._made

    def _run(self) -> None:
        while jobs := self._next():
            make_contents(jobs, self._contents)
            with self._has_made:
                self._made.extend(jobs)
                self._has_made.notify()
        with self._has_made:
            self._has_made.notify()

    def _next(self) -> list[Job]:
        """Wait for rows, then a little for more; nothing at the end."""
        limits = self._limits
        with self._has_come:
            self._has_come.wait_for(lambda: self._came or self._is_closing)
            if len(self._came) < limits.rows and not self._is_closing:
                self._has_come.wait_for(
                    lambda: len(self._came) >= limits.rows or self._is_closing, limits.linger_s
                )
            jobs = [self._came.popleft() for _ in range(min(len(self._came), MAX_COMMIT_ROWS))]
            self._is_closed = not jobs
        return jobs
