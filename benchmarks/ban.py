"""From a ban to the last byte: a real proxy, running streams, and one edit of accounts.toml.

    python -m benchmarks.ban [--streams 1000] [--workers 2] [--runs 5]

Every run starts `watermark-proxy serve`, opens the marked streams of one account, and a tenth as
many that are passed through, and bans the account with `watermark-proxy accounts ban` once each of
them has had a first event and the last ones have come to rest. The upstream is slow, so that a
thousand streams run at a time on two cores: a draft takes 10 to 30 s, an event that is passed
through comes every 2 s. Measured: from the instant at which the command has replaced the file (its
time stamp) to the last byte of every stream. Each must end with an error event, without `[DONE]`; a
stream of another account must go on. How long the proxy takes to say that it is well, just before,
says how busy the machine is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np

from benchmarks.story import print_table
from proxy.accounts.book import KeyDigests
from tests.support.fake_upstream import FakeUpstream, drafted
from tests.support.servers import END, byte_tokenizer
from watermark.keys import KEYS_HEADER, SecretKey, format_key_file, format_record
from watermark.text import tokenizer_unit_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fake_upstream import Turn

DRAFT_S = (10.0, 30.0)
EVENT_S = 2.0
REST_S = 20.0
BETWEEN_S = 0.03  # from one stream to the next: all at once would be another measurement
BANNED, OTHER = b"sk-banned", b"sk-other"
CONFIG = """
state = "."
[server]
port = 0
workers = {workers}
[upstream]
url = "{url}"
max_connections = 8192
connect_timeout_s = 60
[keys]
file = "KEYS.toml"
[accounts]
file = "accounts.toml"
[[model]]
name = "m"
tokenizer = "tokenizer.json"
end_tokens = ["{end}"]
[model.capabilities]
logprobs = 20
logprobs_mode = "tempered"
logit_bias = true
max_n = 8
"""


async def behave(turn: Turn) -> None:
    """Answer drafts after a while, and stream everything else without end."""
    with contextlib.suppress(asyncio.CancelledError):  # of the end of a run; asyncio would log it
        await _answer(turn)


async def _answer(turn: Turn) -> None:
    target = turn.request.target
    if target == b"/v1/models":
        await turn.answer({"data": [{"id": "m", "max_model_len": 100_000}]})
    elif target == b"/tokenize":
        await turn.answer({"tokens": [1, 2, 3]})
    elif "return_token_ids" in (asked := turn.request.json()):
        await asyncio.sleep(random.uniform(*DRAFT_S))  # noqa: S311 - no secret
        await turn.answer(drafted(asked))
    else:
        await turn.raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        while True:
            await turn.chunk(b'data: {"n": 1}\n\n')
            await asyncio.sleep(EVENT_S)


def write_folder(folder: Path, url: str, workers: int) -> None:
    """Write a configuration, a key and two accounts."""
    tokenizer = byte_tokenizer(folder)
    unit = tokenizer_unit_id(tokenizer.read_bytes())
    key = folder / "bench.key"
    key.write_bytes(format_key_file(SecretKey("bench", bytes(range(32)))))
    key.chmod(0o600)
    record = format_record(key_id="bench", unit=unit, secret=key.name, account_share_q16=16384)
    (folder / "KEYS.toml").write_text(f"{KEYS_HEADER}\n{record}")
    digest_key = folder / "accounts.key"
    digest_key.write_text("0" * 64)
    digest_key.chmod(0o600)
    digests = KeyDigests(b"0" * 64)
    lines = ["schema = 1"]
    for name, secret in (("banned", BANNED), ("other", OTHER)):
        lines += ["", "[[account]]", f'name = "{name}"', f'keys = ["{digests.of(secret)}"]']
    (folder / "accounts.toml").write_text("\n".join(lines) + "\n")
    (folder / "proxy.toml").write_text(CONFIG.format(url=url, workers=workers, end=END))


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[str]:
    """Run the proxy in processes of its own; yield its address."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "serve", "--config", str(folder / "proxy.toml"),
        stderr=subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    assert server.stderr is not None
    drain: asyncio.Future[Any] | None = None
    try:
        async for line in server.stderr:
            if b"listening on http://" in line:
                drain = asyncio.ensure_future(server.stderr.read())
                yield line.partition(b"http://")[2].partition(b",")[0].decode()
                break
        else:
            sys.exit("the proxy did not start")
    finally:
        server.terminate()
        await server.wait()
        if drain is not None:
            await drain


class Stream:
    """One client on a connection of its own, read to its end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.last = 0.0
        self.has_begun = asyncio.Event()

    async def run(self, address: str, key: bytes, *, is_marked: bool) -> None:
        """Ask, and read until the connection ends."""
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        model = "m" if is_marked else "unmarked"
        body = json.dumps(
            {"model": model, "prompt": "x", "stream": True, "max_tokens": 50_000}
        ).encode()
        head = (
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (key, len(body))
        )
        writer.write(head + body)
        with contextlib.closing(writer):
            while part := await reader.read(1 << 16):
                self.last = time.time()
                self.data += part
                if b"data: " in part:
                    self.has_begun.set()
        assert self.has_begun.is_set(), bytes(self.data[:600])

    def check(self) -> None:
        """Fail where the stream did not end as a ban ends it."""
        assert b"this account is banned" in self.data[-600:], bytes(self.data[-600:])
        assert b"[DONE]" not in self.data
        assert b'finish_reason":"' not in self.data


async def _health(address: str) -> float:
    """Return the seconds that the proxy takes to say that it is well: how busy it is."""
    start = time.perf_counter()
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
        (await client.get(f"http://{address}/watermark/health")).raise_for_status()
    return time.perf_counter() - start


async def one_run(folder: Path, n_streams: int, workers: int) -> tuple[np.ndarray, float]:
    """Return the seconds from the ban to the last byte of every stream, and of `_health`."""
    async with FakeUpstream(behave).serving() as upstream:
        write_folder(folder, upstream.url, workers)
        async with serving(folder) as address:
            streams = [Stream() for _ in range(n_streams + n_streams // 10)]
            other = Stream()
            tasks = []
            for i, one in enumerate(streams):
                tasks.append(
                    asyncio.ensure_future(one.run(address, BANNED, is_marked=i < n_streams))
                )
                await asyncio.sleep(BETWEEN_S)
            kept = asyncio.ensure_future(other.run(address, OTHER, is_marked=False))
            begun = asyncio.gather(*(one.has_begun.wait() for one in (*streams, other)))
            watched: list[asyncio.Future[Any]] = [begun, *tasks]
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()  # a stream that could not begin says why
            await asyncio.sleep(REST_S)
            assert not any(task.done() for task in tasks), "a stream ended by itself"
            healthy = await _health(address)
            command = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "proxy", "accounts", "ban", "banned",
                "--config", str(folder / "proxy.toml"), stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert await command.wait() == 0
            banned_at = (folder / "accounts.toml").stat().st_ctime
            await asyncio.wait_for(asyncio.gather(*tasks), 60)
            for one in streams:
                one.check()
            seen = len(other.data)
            await asyncio.sleep(2 * EVENT_S)
            assert len(other.data) > seen, "the other account's stream stopped"
            kept.cancel()
            await asyncio.wait({kept})
            return np.array([one.last for one in streams]) - banned_at, healthy


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    rows = []
    for number in range(1, args.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            seconds, health = asyncio.run(one_run(Path(folder), args.streams, args.workers))
        first, middle, last = np.quantile(seconds, [0, 0.5, 1]).tolist()
        rows.append((number, args.streams, len(seconds), args.workers, health, first, middle, last))
        print(rows[-1], flush=True)
    head = ("run", "marked", "streams", "workers", "health, s", "first, s", "median, s", "last, s")
    print_table("From the ban to the last byte", head, rows)


if __name__ == "__main__":
    main()
