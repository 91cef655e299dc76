"""Rows on their way to the disk, each with whoever waits for it.

Rule 1: who waits cannot cancel: what was handed over is written all the same. Rule 2: the
contents of a commit's ends are made in one pass; one answer's fault is not the others'. Rule 3: an
event loop waits for beginnings, so they have futures; ends have receipts, which share one
condition, since there are as many of them and hardly anybody asks.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from watermark.ledger.rows import Kind, Row

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence

    from watermark.ledger.contents import Answer

Contents: TypeAlias = "Callable[[Sequence[Answer]], Sequence[bytes | None]]"

logger = logging.getLogger(__name__)


class Ack(Future[None]):
    """Done once a beginning is durable."""

    def cancel(self) -> bool:
        """Refuse: the row is written all the same."""
        return False


class Receipt:
    """Done once an end is durable; read as a future is.

    Args:
        settled: Notified whenever some are done.
    """

    __slots__ = ("_error", "_is_done", "_settled")

    def __init__(self, settled: threading.Condition) -> None:
        self._settled = settled
        self._is_done = False
        self._error: Exception | None = None

    def done(self) -> bool:
        """Return whether it is known what became of the row."""
        return self._is_done

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Return why the row is lost, None where it is durable.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: It is not known yet.
        """
        if not self._is_done:
            with self._settled:
                if not self._settled.wait_for(self.done, timeout):
                    raise TimeoutError
        return self._error

    def result(self, timeout: float | None = None) -> None:
        """Wait until the row is durable, or raise why it is lost.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            LedgerUnavailableError: It is lost.
            TimeoutError: It is not known yet.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error

    def settle(self, error: Exception | None) -> None:
        """Note what became of the row; whoever waits is notified for many at a time."""
        self._error, self._is_done = error, True


@dataclass(slots=True, eq=False)
class Job:
    """A row that is to be written.

    Attributes:
        row: The row, not yet numbered.
        done: Done once the row is durable.
        answer: What an end's contents are made of, until they are.
    """

    row: Row
    done: Ack | Receipt
    answer: Answer | None = None

    @property
    def is_end(self) -> bool:
        """Whether it is of a reply that has left."""
        return self.row.kind == Kind.END


def settle(
    jobs: Iterable[Job], settled: threading.Condition, error: Exception | None = None
) -> None:
    """Tell whoever waits that rows are durable, or why they are lost."""
    for job in jobs:
        if isinstance(job.done, Receipt):
            job.done.settle(error)
        elif error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(error)
    with settled:
        settled.notify_all()


def make_contents(jobs: Sequence[Job], contents: Contents) -> None:
    """Put the contents into the rows of ends; they cost an answer one time."""
    ends = [(job, job.answer) for job in jobs if job.answer is not None]
    try:
        made = list(contents([answer for _, answer in ends]))
    except Exception:  # noqa: BLE001 - whose fault it is shows when each is made alone
        made = [_made_alone(answer, contents) for _, answer in ends]
    for (job, _), one in zip(ends, made, strict=True):
        job.row, job.answer = Row(*job.row[:-1], one), None


def _made_alone(answer: Answer, contents: Contents) -> bytes | None:
    """Return one answer's contents; an end without them is better than none."""
    try:
        return contents([answer])[0]
    except Exception as err:  # noqa: BLE001 - whatever it is, the row is written
        name = type(err).__name__  # its text may be a caller's
        logger.error("the contents of a reply cannot be kept: %s", name)  # noqa: TRY400
        return None
