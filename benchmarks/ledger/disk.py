"""A disk that fills up under a real proxy: how long marking goes on, and whether all is written.

The ledger lies on a file system of its own of a few megabytes (which needs root). A file takes
the rest of it at an instant; streams run on and new ones are asked for. What was marked and came
after is held against the ledger, once there is room again.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import numpy as np

from benchmarks.ledger.kills import Got, LedgerStage
from watermark.ledger import Kind, Pseudonyms, files_in, gap_of, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLIENTS = 6


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request: when it was asked, when its last byte came, whether it was marked, and what."""

    at: float
    last: float
    is_marked: bool
    status: int
    got: Got


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[None]:
    """Mount a small file system in memory."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "none", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def _ask(client: httpx2.AsyncClient, number: int) -> Asked:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": f"question {number}"}],
        "max_tokens": 40,
        "stream": True,
    }
    data, at = bytearray(), time.monotonic()
    last = at
    status, header = 0, ""
    with contextlib.suppress(httpx2.HTTPError):
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            status, header = answer.status_code, answer.headers.get("x-watermark", "")
            async for part in answer.aiter_raw():
                data += part
                last = time.monotonic()
    is_marked = header.startswith("marked")
    got = Got(body=body, data=bytes(data))
    return Asked(at=at, last=last, is_marked=is_marked, status=status, got=got)


async def _load(url: str, ballast: Path, seconds: float) -> tuple[list[Asked], float]:
    """Ask all the time; fill the disk after a while, and empty it again."""
    done: list[Asked] = []
    stop = asyncio.Event()

    async def client(place: int) -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
            number = place
            while not stop.is_set():
                done.append(await _ask(http, number))
                number += _CLIENTS
                if not done[-1].is_marked:
                    await asyncio.sleep(0.05)

    tasks = [asyncio.ensure_future(client(place)) for place in range(_CLIENTS)]
    await asyncio.sleep(seconds)
    full_at = time.monotonic()
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    await asyncio.sleep(seconds + 1)
    ballast.unlink()  # noqa: ASYNC240 - at this instant
    await asyncio.sleep(seconds)
    stop.set()
    await asyncio.gather(*tasks)
    return done, full_at


def main(seconds: float = 5.0) -> None:
    """Print the table, for a ledger that keeps a reserve and for one that does not."""
    print("reserve  marked before  s until last marked byte  refused  marked after  unlogged  gaps")
    for reserve in (8, 0):
        with tempfile.TemporaryDirectory() as folder:
            stage = LedgerStage(Path(folder) / "stage", np.random.default_rng(0))
            stage.write_keys(stage.make_key("first"))
            with small_disk(stage.folder / "ledger", 64):
                print(_row(stage, reserve, seconds))


def _row(stage: LedgerStage, reserve: int, seconds: float) -> str:
    stage.make_ledger(reserve_mib=reserve)
    with stage.serving():
        ballast = stage.folder / "ledger" / "ballast"
        asked, full_at = asyncio.run(_load(stage.url, ballast, seconds))
    settings = stage.settings()
    names = Pseudonyms(settings.secret())
    rows = [
        row for name in files_in(settings.rows) for row in read_file(settings.rows / str(name)).rows
    ]
    begun = {row.conversation for row in rows if row.kind == Kind.BEGIN}
    marked = [one for one in asked if one.is_marked]
    unlogged = sum(one.got.conversation(names) not in begun for one in marked)
    back_at = full_at + seconds + 1
    during = [one.last - full_at for one in marked if full_at <= one.last < back_at]
    causes = sorted({gap_of(row).cause for row in rows if row.kind == Kind.GAP})
    return (
        f"{reserve:>4} MiB{sum(one.at < full_at for one in marked):>14}"
        f"{max(during, default=0.0):>26.2f}{sum(one.status == 503 for one in asked):>9}"
        f"{sum(one.at >= back_at for one in marked):>14}{unlogged:>10}  {', '.join(causes)}"
    )
