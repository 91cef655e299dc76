"""Outages: the store away for ten minutes at 200 replies a second; a disk that is full, or fails.

*store*: one writer takes replies in real time while a sealing process runs every few seconds
against a store that is not there; then the store comes back. Memory is this process's, which is
what a worker is to the ledger. *disk*: a real proxy whose ledger lies on a small file system that
fills up under load; a disk that answers with errors is the same code, driven in the tests.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.support.ledgers import make_settings
from watermark.keys import KeyRecord, SecretKey
from watermark.ledger import Delivered, Ending, Kind, Ledger, Outcome, files_in
from watermark.ledger.arrow import rows_of
from watermark.ledger.reading import verify_node
from watermark.ledger.store import SegmentStore, segment_name
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watermark.ledger import LedgerSettings

RATE = 200
SEGMENT_SECONDS = 15
_TOKENS = 300


def resident_bytes() -> int:
    """Return what this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def store_away(folder: Path, seconds: float) -> None:
    """Deliver while the store is away, then seal with it there, and count."""
    settings = make_settings(folder, file_s=SEGMENT_SECONDS, folder_bytes=1 << 40)
    _write_span(settings)
    blocked = Path(settings.store)
    blocked.write_text("a file where the store should be")
    ledger = Ledger(
        settings,
        machine="bench",
        now=time.time,
        clock=time.monotonic,
        entropy=secrets.token_bytes,
    )
    _deliver(ledger, 2.0)  # buffers of the process reach their size
    before, most = resident_bytes(), 0
    with _sealing(settings):
        began = time.monotonic()
        n_replies = 0
        while time.monotonic() - began < seconds:
            n_replies += _deliver(ledger, 1.0)
            most = max(most, resident_bytes())
    spent = time.monotonic() - began
    n_replies += 2 * RATE
    ledger.close()
    waiting = len(list((settings.rows / "outbox").glob("*.header")))
    blocked.unlink()
    for _ in range(2):
        _seal_once(settings)
    begins, ends, distinct = _count(settings)
    rate = (n_replies - 2 * RATE) / spent
    print(f"store away for {spent:.0f} s at {rate:.0f} replies/s: {waiting} segments waited")
    print(
        f"replies delivered {n_replies:,}; begun in the store {begins:,}, ended {ends:,}, "
        f"of them different {distinct:,}; left on the machine {len(files_in(settings.rows))}"
    )
    print(f"memory grew by {(most - before) / 2**20:.1f} MiB")


def _deliver(ledger: Ledger, seconds: float) -> int:
    """Deliver at the rate for a while; return how many."""
    rng = np.random.default_rng(0)
    keyed = KeyedUniforms(KeyRecord(key_id="k", unit="words/v1", secret=SecretKey("k", b"k" * 32)))
    tokens = rng.integers(50_000, size=_TOKENS).tolist()
    count = int(seconds * RATE)
    start = time.monotonic()
    for number in range(count):
        entry = ledger.begin(
            account=None, opening=b"?", keyed=keyed, tokenizer="t", model="m", path="splice"
        )
        ending = Ending(outcome=Outcome.FINISH, n_tokens=_TOKENS, n_bytes=1500, digest=bytes(32))
        one = Delivered(tokens=tokens, units=lambda: tokens)
        ledger.end(entry, ending, [one], keyed)
        time.sleep(max(0.0, start + (number + 1) / RATE - time.monotonic()))
    return count


def _write_span(settings: LedgerSettings) -> None:
    text = settings.path.read_text()
    settings.path.write_text(f'{text}segment_seconds = {SEGMENT_SECONDS}.0\nnode = "node"\n')


@contextlib.contextmanager
def _sealing(settings: LedgerSettings) -> Iterator[None]:
    """Run the sealing command every few seconds, as the proxy does."""
    command = f"while :; do sleep 5; {_command(settings)} 2>/dev/null; done"
    with subprocess.Popen(["/bin/sh", "-c", command], start_new_session=True) as loop:
        try:
            yield
        finally:
            os.killpg(loop.pid, 9)


def _command(settings: LedgerSettings) -> str:
    return f"{sys.executable} -m watermark ledger seal --quiet --ledger {settings.path}"


def _seal_once(settings: LedgerSettings) -> None:
    subprocess.run(_command(settings).split(), check=True)


def _count(settings: LedgerSettings) -> tuple[int, int, int]:
    """Return begins, ends and different ends in the store, once its chain holds."""
    store = SegmentStore(settings.store)
    verified = verify_node(store, "node", settings.verifier)
    ended: set[bytes | None] = set()
    for header in verified.kept:
        with store.open("node", segment_name(header.segment)) as file:
            for _, rows in rows_of(file):
                ended |= {row.reply for row in rows if row.kind == Kind.END}
    return verified.begins, verified.ends, len(ended)


def main(seconds: float = 600.0) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("LEDGER_BENCHMARK_FOLDER")) as folder:
        store_away(Path(folder) / "ledger", seconds)
