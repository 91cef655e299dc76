"""Several workers on one socket: started, started again, told, and stopped by one process.

Rule 1: this process has one thread and no event loop, so that it may fork at any time. Rule 2: it
keeps the keys as its workers do, so that a worker that is started again has those in force.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from proxy.cli.watching import until_next_look
from watermark.keys.hardening import end_with_parent
from watermark.keys.reports import read_reports, withdraw_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from proxy.cli.watching import Watched
    from proxy.sampling.keys import KeyHolder

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_STOP_SECONDS: Final = 15.0  # more than a worker gives its answers to finish
_RESTART_SECONDS: Final = 1.0
_APART_SECONDS: Final = 2.0
_EXIT_ERROR: Final = 1

logger = logging.getLogger(__name__)


class Supervisor:
    """Runs workers until it is told to stop."""

    def __init__(
        self,
        *,
        count: int,
        work: Callable[[], None],
        reloader: Watched,
        holder: KeyHolder,
        folder: Path,
    ) -> None:
        """Prepare to run workers.

        Args:
            count: How many.
            work: What each does until it is told to stop.
            reloader: Keeps this process's keys as their file says.
            holder: Holds them.
            folder: Where workers report.
        """
        self._count = count
        self._work = work
        self._reloader = reloader
        self._holder = holder
        self._folder = folder
        self._workers: dict[int, float] = {}
        self._start_at: list[float] = [0.0] * count
        self._stops = False
        self._is_asked = False
        self._apart: dict[int, float] = {}

    def run(self) -> None:
        """Run the workers; return when all of them have stopped."""
        for number in _STOP_SIGNALS:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hup)
        try:
            while not self._stops:
                self._start_missing()
                self._sleep()
                self._reap()
                is_asked, self._is_asked = self._is_asked, False
                if is_asked:
                    self._tell(signal.SIGHUP)
                self._reloader.step(is_asked=is_asked)
                self._compare()
        finally:
            self._stop()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's form
        self._stops = True

    def _on_hup(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's form
        self._is_asked = True

    def _sleep(self) -> None:
        """Wait for the next look at the files; signals end it early."""
        deadline = time.monotonic() + until_next_look()
        while not (self._stops or self._is_asked) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))  # a handler that ran between test and sleep costs no more

    def _start_missing(self) -> None:
        now = time.monotonic()
        while len(self._workers) < self._count and self._start_at and self._start_at[0] <= now:
            self._start_at.pop(0)
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                self._be_worker(parent)
            self._workers[pid] = now

    def _be_worker(self, parent: int) -> None:
        """Work in a process of its own; never returns."""
        status = _EXIT_ERROR
        try:
            for number in _STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            end_with_parent(signal.SIGTERM)
            if os.getppid() == parent:
                self._work()
                status = 0
        except BaseException:
            logger.exception("a worker failed")
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> None:
        for pid in list(self._workers):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._forget(pid)
                code = os.waitstatus_to_exitcode(status)
                logger.error("worker %d ended (%d); starting another", pid, code)

    def _forget(self, pid: int) -> None:
        started = self._workers.pop(pid)
        self._apart.pop(pid, None)
        self._start_at.append(started + _RESTART_SECONDS)
        withdraw_report(self._folder, pid)

    def _tell(self, number: int) -> None:
        for pid in self._workers:
            os.kill(pid, number)  # not reaped yet, so the number is the worker's

    def _compare(self) -> None:
        """Say once when a worker has other keys than the rest for longer than it may."""
        wanted, now = self._holder.current.generation, time.monotonic()
        for pid, (_, report) in read_reports(self._folder).items():
            if pid not in self._workers or report.generation == wanted:
                self._apart.pop(pid, None)
                continue
            since = self._apart.setdefault(pid, now)
            if 0 <= since <= now - _APART_SECONDS:
                self._apart[pid] = -1.0  # said
                logger.error(
                    "worker %d has keys of generation %s, not %s: %s",
                    pid,
                    report.generation,
                    wanted,
                    report.error or "it did not reload",
                )

    def _stop(self) -> None:
        """Tell the workers to stop, and see to it that they do."""
        self._tell(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._workers:
            if time.monotonic() > deadline:
                self._tell(signal.SIGKILL)
            for pid in list(self._workers):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._forget(pid)
            time.sleep(0.02)
