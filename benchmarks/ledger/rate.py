"""What rows cost: ends a second of 300-token replies at synchronous=FULL, by what is kept.

The time of the processor is both threads', the caller's and the writer's: it is what an end costs
whatever else the machine does meanwhile.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from proxy.cli.serve import SWITCH_SECONDS
from tests.support.ledgers import make_settings
from watermark.keys import KeyRecord, SecretKey
from watermark.ledger import Delivered, Ending, Keeps, Ledger, Outcome
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from watermark.ledger.jobs import Receipt

TOKENS = 300
ACCOUNTS = 200
_WINDOW = 2000  # ends that wait to be durable at a time


class Rate(NamedTuple):
    """What writing ends took: durable ends a second, rows a commit, microseconds of CPU an end."""

    per_second: float
    rows: float
    cpu_us: float


def write_ends(folder: Path, keeps: Keeps, n_replies: int) -> Rate:
    """Write ends as fast as they become durable; beginnings are written before."""
    ledger = Ledger(
        make_settings(folder, keeps, folder_bytes=1 << 40),
        machine="bench",
        now=time.time,
        clock=time.monotonic,
        entropy=secrets.token_bytes,
    )
    keyed = KeyedUniforms(KeyRecord(key_id="k", unit="words/v1", secret=SecretKey("k", b"k" * 32)))
    rng = np.random.default_rng(0)
    replies = [rng.integers(50_000, size=TOKENS).tolist() for _ in range(500)]
    entries = [
        ledger.begin(
            account=f"account-{n % ACCOUNTS}",
            opening=n.to_bytes(4, "big"),
            keyed=keyed,
            tokenizer="t",
            model="m",
            path="splice",
        )
        for n in range(n_replies)
    ]
    entries[-1].durable.result(600)
    before = ledger.stats.commits
    waiting: deque[Receipt] = deque()
    start, cpu = time.perf_counter(), time.process_time()
    for n, entry in enumerate(entries):
        tokens = replies[n % len(replies)]
        ending = Ending(
            outcome=Outcome.FINISH, n_tokens=TOKENS, n_bytes=1500, digest=entry.beginning.reply * 2
        )
        waiting.append(ledger.end(entry, ending, [_delivered(tokens)], keyed))
        if len(waiting) > _WINDOW:
            waiting.popleft().result(60)
    for ack in waiting:
        ack.result(60)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    commits = ledger.stats.commits - before
    ledger.close()
    return Rate(n_replies / seconds, n_replies / commits, cpu / n_replies * 1e6)


def _delivered(tokens: list[int]) -> Delivered:
    return Delivered(tokens=tokens, units=lambda: tokens)


def syncs_per_second(folder: Path, n_bytes: int = 240_000) -> float:
    """Return how often the disk takes and syncs a batch's worth of bytes: the limit of any design.

    The log ahead of the file is written over and over, as SQLite's is.
    """
    data = os.urandom(n_bytes)
    descriptor = os.open(folder / "limit", os.O_CREAT | os.O_RDWR, 0o600)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 2:
        os.pwrite(descriptor, data, count % 60 * n_bytes)
        os.fdatasync(descriptor)
        count += 1
    os.close(descriptor)
    return count / (time.perf_counter() - start)


def main(n_replies: int = 60_000) -> None:
    """Print the table."""
    where = Path(os.environ.get("LEDGER_BENCHMARK_FOLDER", "."))
    with tempfile.TemporaryDirectory(dir=where) as folder:
        limit = syncs_per_second(Path(folder))
    print(f"one batch of 100 rows written and synced by hand: {limit:,.0f}/s")
    print(f"that is at most {limit * 100:,.0f} rows/s with 100 rows a commit")
    sys.setswitchinterval(SWITCH_SECONDS)
    print("kept        ends/s   rows a commit   cpu us an end")
    for keeps in Keeps:
        with tempfile.TemporaryDirectory(dir=where) as folder:
            rate = write_ends(Path(folder) / "ledger", keeps, n_replies)
        print(f"{keeps.value:<10}{rate.per_second:>8,.0f}{rate.rows:>16.0f}{rate.cpu_us:>16.1f}")
