"""Rows on their way to the disk, each with whoever waits for it.

Rule 1: who waits cannot cancel: what was handed over is written all the same. Rule 2: the contents
of a commit's ends are made in one pass; one answer's fault is not the others'.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from watermark.ledger.rows import Kind, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.ledger.contents import Answer

Contents: TypeAlias = "Callable[[Sequence[Answer]], Sequence[bytes | None]]"

logger = logging.getLogger(__name__)


class Ack(Future[None]):
    """Done once a row is durable."""

    def cancel(self) -> bool:
        """Refuse: the row is written all the same."""
        return False


@dataclass(slots=True, eq=False)
class Job:
    """A row that is to be written.

    Attributes:
        row: The row, not yet numbered.
        answer: What an end's contents are made of, until they are.
        done: Done once the row is durable.
    """

    row: Row
    answer: Answer | None = None
    done: Ack = field(default_factory=Ack)

    @property
    def is_end(self) -> bool:
        """Whether it is of a reply that has left."""
        return self.row.kind == Kind.END


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
