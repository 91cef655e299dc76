"""The queue before the writer: order, contents made beside it, and nothing lost at the end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from watermark.errors import LedgerUnavailableError
from watermark.ledger.jobs import Ack, Job, Receipt, settle
from watermark.ledger.limits import WriterLimits
from watermark.ledger.queue import MAX_COMMIT_ROWS, JobQueue
from watermark.ledger.rows import Kind, Row

SETTLED = threading.Condition()


def job(n: int, answer: Any = None) -> Job:
    return Job(Row(seq=0, kind=Kind.END, at_us=n), Receipt(SETTLED), answer)


def taken(queue: JobQueue, n: int) -> list[Job]:
    jobs: list[Job] = []
    while len(jobs) < n:
        found = queue.take(10)
        assert 0 < len(found) <= MAX_COMMIT_ROWS
        jobs += found
    return jobs


def test_rows_leave_in_order_with_their_contents() -> None:
    def contents(answers: Any) -> list[bytes]:
        return [bytes([one % 256]) for one in answers]

    queue = JobQueue(contents, WriterLimits())
    for n in range(2500):
        assert queue.put(job(n, n if n % 2 else None))
    jobs = taken(queue, 2500)
    assert [one.row.at_us for one in jobs] == list(range(2500))
    assert all(
        one.row.contents == (bytes([n % 256]) if n % 2 else None) for n, one in enumerate(jobs)
    )
    assert len(queue) == 0
    assert queue.take(0.001) == []


def test_contents_are_made_while_nobody_takes() -> None:
    made = threading.Event()

    def contents(answers: Any) -> list[bytes]:
        made.set()
        return [b"x"] * len(answers)

    queue = JobQueue(contents, WriterLimits())
    queue.put(job(1, 1))
    assert made.wait(10)
    assert len(queue) == 1
    assert taken(queue, 1)[0].row.contents == b"x"


def test_all_that_was_taken_in_leaves_before_the_end() -> None:
    queue = JobQueue(lambda answers: [None] * len(answers), WriterLimits(linger_s=60))
    for n in range(10):
        queue.put(job(n))
    queue.close()
    assert len(taken(queue, 10)) == 10
    assert queue.take(10) == []
    assert queue.has_ended()
    assert not queue.put(job(11))


def test_whoever_waits_learns_what_became_of_a_row() -> None:
    receipt, ack = Receipt(SETTLED), Ack()
    with pytest.raises(TimeoutError):
        receipt.result(0.001)
    timer = threading.Timer(0.05, lambda: settle([Job(Row(0, 2, 0), receipt)], SETTLED))
    timer.start()
    receipt.result(10)
    assert receipt.done()
    lost = [Job(Row(0, 2, 0), Receipt(SETTLED)), Job(Row(0, 1, 0), ack)]
    settle(lost, SETTLED, LedgerUnavailableError("away"))
    for one in lost:
        with pytest.raises(LedgerUnavailableError, match="away"):
            one.done.result(1)
    assert not ack.cancel()
