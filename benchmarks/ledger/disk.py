"""A disk that fills up, or fails: how long marking goes on, and whether all of it is written.

Full: the ledger of a real proxy lies on a file system of its own of a few megabytes (which needs
root). A file takes the rest of it at an instant. I/O errors: every sync of the ledger meets one
(EIO) from an instant on, in a proxy on a socket whose ledger is on a disk in memory. Streams run
on and new ones are asked for meanwhile. What was marked and came after is held against the ledger,
once the disk works again.
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

import apsw
import httpx2
import numpy as np

from benchmarks.ledger.kills import Got, LedgerStage
from proxy.app import create_app
from proxy.cli.servers import running
from proxy.config import LedgerConfig
from tests.support.disks import Disk
from tests.support.fake_upstream import FakeUpstream, Turn, honest
from tests.support.ledgers import make_settings, open_ledger, rows_in
from tests.support.servers import (
    SELECT_ONLY,
    byte_tokenizer,
    key_ring,
    model_config,
    proxy_config,
)
from watermark.ledger import Kind, Pseudonyms, files_in, gap_of, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from watermark.ledger import Row

_CLIENTS = 6
_DRAFT_S = 0.03


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


async def _load(
    url: str, seconds: float, break_it: Callable[[], object], mend_it: Callable[[], object]
) -> tuple[list[Asked], float]:
    """Ask all the time; break the disk after a while, and mend it again."""
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
    broken_at = time.monotonic()
    break_it()
    await asyncio.sleep(seconds + 1)
    mend_it()
    await asyncio.sleep(seconds)
    stop.set()
    await asyncio.gather(*tasks)
    return done, broken_at


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()


def main(seconds: float = 5.0) -> None:
    """Print the table: a full disk, with a reserve and without, and one that fails."""
    print(
        "disk               marked before  s until last marked byte  refused  marked after  "
        "unlogged  gaps"
    )
    for reserve in (8, 0):
        with tempfile.TemporaryDirectory() as folder:
            stage = LedgerStage(Path(folder) / "stage", np.random.default_rng(0))
            stage.write_keys(stage.make_key("first"))
            with small_disk(stage.folder / "ledger", 64):
                print(_full(stage, reserve, seconds), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(_failing(Path(folder), seconds)))


def _full(stage: LedgerStage, reserve: int, seconds: float) -> str:
    stage.make_ledger(reserve_mib=reserve)
    ballast = stage.folder / "ledger" / "ballast"
    with stage.serving():
        work = _load(stage.url, seconds, lambda: _fill(ballast), ballast.unlink)
        asked, full_at = asyncio.run(work)
    settings = stage.settings()
    rows = [
        row for name in files_in(settings.rows) for row in read_file(settings.rows / str(name)).rows
    ]
    names = Pseudonyms(settings.secret())
    return _line(f"full, {reserve} MiB kept", asked, (full_at, seconds), rows, names)


async def _failing(folder: Path, seconds: float) -> str:
    settings, disk = make_settings(folder), Disk("failing")
    tokenizer, draft = byte_tokenizer(folder), honest()

    async def behave(turn: Turn) -> None:
        await asyncio.sleep(_DRAFT_S)
        await draft(turn)

    async with FakeUpstream(behave).serving() as upstream:
        config = proxy_config(
            upstream.url,
            model_config("m", tokenizer, splice=SELECT_ONLY),
            ledger=LedgerConfig(file="LEDGER.toml", on_unavailable="block"),
            state=str(folder),
        )
        app = create_app(
            config, key_ring(tokenizer), open_ledger=lambda: open_ledger(settings, disk)
        )
        async with running(app) as url:
            asked, at = await _load(
                url, seconds, lambda: disk.fault.update(sync=apsw.IOError), disk.fault.clear
            )
    rows, names = rows_in(settings, disk), Pseudonyms(settings.secret())
    return _line("I/O errors", asked, (at, seconds), rows, names)


def _line(
    disk: str,
    asked: Sequence[Asked],
    broken: tuple[float, float],
    rows: Sequence[Row],
    names: Pseudonyms,
) -> str:
    at, seconds = broken
    begun = {row.conversation for row in rows if row.kind == Kind.BEGIN}
    marked = [one for one in asked if one.is_marked]
    unlogged = sum(one.got.conversation(names) not in begun for one in marked)
    back_at = at + seconds + 1
    during = [one.last - at for one in marked if at <= one.last < back_at]
    causes = sorted({gap_of(row).cause for row in rows if row.kind == Kind.GAP})
    return (
        f"{disk:<19}{sum(one.at < at for one in marked):>13}"
        f"{max(during, default=0.0):>26.2f}{sum(one.status == 503 for one in asked):>9}"
        f"{sum(one.at >= back_at for one in marked):>14}{unlogged:>10}  {', '.join(causes)}"
    )
