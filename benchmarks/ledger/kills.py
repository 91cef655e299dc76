"""Processes that end in mid-stream: every reply that left a byte is in the ledger, ended or open.

Each round starts a real `watermark-proxy serve`, opens streams to it, ends it by SIGTERM or by
SIGKILL while they run, and holds what every client got against the ledger. A client's reply is
found by its conversation: each asks something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np

from benchmarks.rotation.stage import Stage
from proxy.routes.delivery import opening_of
from watermark.ledger import (
    Kind,
    LedgerSettings,
    Pseudonyms,
    create_ledger,
    files_in,
    is_live,
    load_settings,
    read_file,
)
from watermark.ledger.reading import verify_node
from watermark.ledger.sealing import Sealer
from watermark.ledger.store import SegmentStore
from watermark.wire.openai_requests import DialectName, parse_request

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from watermark.ledger import Row

WORKERS = 2
_WARM_SECONDS = 20.0  # at most, until most clients have a byte
_MOST = 0.75
_TOKENS = 3000
_SHOWN_EVERY = 10


class LedgerStage(Stage):
    """A stage whose proxy keeps a ledger."""

    @property
    def ledger_file(self) -> Path:
        """The ledger's file."""
        return self.folder / "ledger" / "LEDGER.toml"

    def config(self, upstream: str) -> Path:
        """Write the configuration."""
        path = super().config(upstream)
        table = '[ledger]\nfile = "ledger/LEDGER.toml"\ncreate_if_missing = true\n'
        path.write_text(path.read_text() + table)
        return path

    def make_ledger(self, *, reserve_mib: int, more: str = 'store = ""\n') -> None:
        """Make the ledger before the proxy does, with a reserve of space."""
        settings = create_ledger(
            self.ledger_file, name="stage.invalid/ledger", secret=b"s" * 32, seed=b"e" * 32
        )
        lines = settings.path.read_text().splitlines(keepends=True)
        text = "".join(line for line in lines if not line.startswith("store ="))
        settings.path.write_text(f"{text}reserve_mib = {reserve_mib}\n{more}")

    def settings(self) -> LedgerSettings:
        """Read the ledger's file."""
        return load_settings(self.ledger_file)


@dataclass(frozen=True, kw_only=True)
class Got:
    """What one client had when its connection broke."""

    body: dict[str, Any]
    data: bytes

    def conversation(self, names: Pseudonyms) -> bytes:
        """Return the pseudonym under which the ledger has it."""
        request = parse_request(DialectName.CHAT, json.dumps(self.body).encode())
        return names.of_conversation(opening_of(request))


@dataclass(kw_only=True)
class Tally:
    """What the rounds found.

    Attributes:
        rounds: Processes ended.
        streams: Clients that had a byte.
        ended: Of those, replies with an end.
        open: Of those, replies that began and did not end.
        open_after_term: Of those, where the process was told to stop, and had the time for it only
            on a machine that is not overloaded.
        missing: Of those, replies that are not in the ledger.
        wrong: Ends that say less than a client had, or another digest of the same bytes.
        gaps: Files that were not closed.
    """

    rounds: int = 0
    streams: int = 0
    ended: int = 0
    open: int = 0
    open_after_term: int = 0
    missing: int = 0
    wrong: int = 0
    gaps: int = 0

    def take(self, rows: Sequence[Row], got: Sequence[Got], names: Pseudonyms) -> None:
        """Hold what clients had against the rows."""
        begun = {row.conversation for row in rows if row.kind == Kind.BEGIN}
        ends = {row.conversation: row for row in rows if row.kind == Kind.END}
        for one in got:
            if not one.data:
                continue
            self.streams += 1
            conversation = one.conversation(names)
            end = ends.get(conversation)
            self.missing += conversation not in begun
            self.ended += end is not None
            self.open += conversation in begun and end is None
            self.wrong += end is not None and not _agrees(end, one.data)


def _agrees(end: Row, data: bytes) -> bool:
    if end.n_bytes == len(data):
        return end.digest == hashlib.sha256(data).digest()
    return (end.n_bytes or 0) > len(data)  # the rest was on its way


async def _stream(client: httpx2.AsyncClient, number: int, begun: set[int]) -> Got:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": f"question {number}"}],
        "max_tokens": _TOKENS,
        "stream": True,
    }
    data = bytearray()
    with contextlib.suppress(httpx2.HTTPError):
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code == 200:
                async for part in answer.aiter_raw():
                    data += part
                    begun.add(number)
    return Got(body=body, data=bytes(data))


async def _round(
    stage: LedgerStage,
    proxy: subprocess.Popen[bytes],
    numbers: range,
    how: signal.Signals,
    delay: float,
) -> list[Got]:
    begun: set[int] = set()
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=stage.url, timeout=30, trust_env=False, limits=limits
    ) as client:
        tasks = [asyncio.ensure_future(_stream(client, number, begun)) for number in numbers]
        deadline = time.monotonic() + _WARM_SECONDS
        wanted = _MOST * len(numbers)
        while len(begun) < wanted and time.monotonic() < deadline:  # noqa: ASYNC110 - in turns
            await asyncio.sleep(0.02)
        await asyncio.sleep(delay)
        pids = [*stage.reports(), proxy.pid] if how is signal.SIGKILL else [proxy.pid]
        for pid in dict.fromkeys(pids):
            os.kill(pid, how)
        return await asyncio.gather(*tasks)


def run(folder: Path, rounds: int, n_streams: int, seed: int = 0) -> Iterator[Tally]:
    """End the proxy so many times, SIGTERM and SIGKILL in turns; yield the tally so far."""
    rng = np.random.default_rng(seed)
    stage = LedgerStage(folder, rng, workers=WORKERS)
    stage.write_keys(stage.make_key("first"))
    tally = Tally()
    for number in range(rounds):
        how = signal.SIGKILL if number % 2 else signal.SIGTERM
        with stage.serving() as proxy:
            numbers = range(number * n_streams, (number + 1) * n_streams)
            delay = float(rng.uniform(0, 1.5))
            got = asyncio.run(_round(stage, proxy, numbers, how, delay))
            proxy.wait(120)
        tally.rounds += 1
        names = Pseudonyms(stage.settings().secret())
        rows_folder = stage.settings().rows
        _await_locks(rows_folder)
        rows = [
            r for name in files_in(rows_folder) for r in read_file(rows_folder / str(name)).rows
        ]
        before = tally.open
        tally.take(rows, got, names)
        if how is signal.SIGTERM:
            tally.open_after_term += tally.open - before
        tally.gaps += _sealed_gaps(stage.settings())
        yield tally


def _await_locks(folder: Path) -> None:
    """Wait until the killed processes are gone."""
    deadline = time.monotonic() + 60
    while any(is_live(folder / str(name)) for name in files_in(folder)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _sealed_gaps(settings: LedgerSettings) -> int:
    """Seal what a round left, hold the chain together, and return the gaps it tells."""
    (node,) = {name.node for name in files_in(settings.rows)}
    sealer = Sealer(settings, node=node, signer=settings.signer(), key_log=None)
    done = sealer.run(time.time_ns() // 1000)
    assert done is not None
    assert done.segment is not None
    assert not done.problem
    verify_node(SegmentStore(settings.store), node, settings.verifier)
    return sum(gap.cause == "file-not-closed" for gap in done.segment.gaps)


def main(rounds: int = 200, n_streams: int = 100) -> None:
    """Print the table, a line whenever some rounds are done."""
    print(
        "rounds  streams with a byte  ended  open  of them told to stop  not in the ledger  wrong"
    )
    with tempfile.TemporaryDirectory() as folder:
        for tally in run(Path(folder) / "stage", rounds, n_streams):
            if tally.rounds % _SHOWN_EVERY == 0 or tally.rounds == rounds:
                print(_line(tally), flush=True)


def _line(tally: Tally) -> str:
    return (
        f"{tally.rounds:>6}{tally.streams:>21}{tally.ended:>7}{tally.open:>6}"
        f"{tally.open_after_term:>22}{tally.missing:>19}{tally.wrong:>7}"
    )
