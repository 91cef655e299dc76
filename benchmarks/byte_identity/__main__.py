"""What is not marked leaves the proxy as it came: every byte, status and header, both ways.

    python -m benchmarks.byte_identity [--replies 10000] [--bodies 10000] [--seed 0]

A real `watermark-proxy serve` stands before an upstream whose every reply is drawn from a seed:
calls of tools and structured output in four dialects, streamed and whole, written with odd white
space, numbers, escapes, line ends and field order, cut anywhere, some compressed; and bodies of any
kind on any other path, labelled rightly or not. The client compares what it gets with what was
drawn, and the upstream what it was asked with what the client sent. The last row is the control: an
upstream that changes one bit of its reply must be found out every time.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2

from benchmarks.byte_identity.draws import Exchange, exchange_of
from benchmarks.story import print_table
from tests.support.fake_upstream import FakeUpstream
from tests.support.processes import served
from tests.support.servers import END, byte_tokenizer
from watermark.keys import KEYS_HEADER, SecretKey, format_record, write_key_file
from watermark.text import tokenizer_unit_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_upstream import Turn

NUMBER: Final = "x-number"
AT_ONCE: Final = 16
CONTROL: Final = 1_000_000_000  # numbers from here on are controls
CONTROLS: Final = 100
CONFIG: Final = """
[server]
port = 0
[upstream]
url = "{url}"
[keys]
file = "KEYS.toml"
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
# Compared; what a hop owns (connection, transfer coding) is its own affair.
HOP: Final = {"connection", "transfer-encoding", "keep-alive", "date"}


class Upstream:
    """Gives the drawn replies, and counts requests that came otherwise than they were sent."""

    def __init__(self, seed: int, n_structured: int) -> None:
        """Draw from a seed."""
        self._seed = seed
        self._n_structured = n_structured
        self.changed: Counter[str] = Counter()

    async def __call__(self, turn: Turn) -> None:
        """Answer one request."""
        (number,) = map(int, turn.request.values(NUMBER.encode()))
        is_control = number >= CONTROL
        number %= CONTROL
        drawn = exchange_of(self._seed, number, self._n_structured)
        asked = (turn.request.method, turn.request.target, turn.request.body)
        if asked != (drawn.method, drawn.path.encode(), drawn.body):
            self.changed[drawn.kind] += 1
        await self._answer(turn, _spoilt(drawn) if is_control else drawn)

    async def _answer(self, turn: Turn, drawn: Exchange) -> None:
        lines = [f"HTTP/1.1 {drawn.status} Said", *(f"{k}: {v}" for k, v in drawn.headers)]
        if drawn.has_length:
            lines.append(f"content-length: {len(drawn.reply)}")
        else:
            lines.append("transfer-encoding: chunked")
        await turn.raw("\r\n".join(lines).encode() + b"\r\n\r\n")
        for chunk in drawn.chunks:
            await (turn.raw(chunk) if drawn.has_length else turn.chunk(chunk))
        if not drawn.has_length:
            await turn.raw(b"0\r\n\r\n")


def _spoilt(drawn: Exchange) -> Exchange:
    """Return an exchange whose reply differs in its last bit."""
    *before, last = drawn.chunks or (b"",)
    return replace(drawn, chunks=(*before, last[:-1] + bytes([last[-1] ^ 1 if last else 1])))


async def is_identical(client: httpx2.AsyncClient, number: int, drawn: Exchange) -> bool:
    """Ask the proxy, and compare what comes with what was drawn."""
    headers = {NUMBER: str(number), "content-type": drawn.label}
    async with client.stream(
        drawn.method, drawn.path, content=drawn.body or None, headers=headers
    ) as answer:
        data = b"".join([chunk async for chunk in answer.aiter_raw()])
    got = [(name, value) for name, value in answer.headers.multi_items() if name not in HOP]
    sent = [*drawn.headers]
    if drawn.has_length:
        sent.append(("content-length", str(len(drawn.reply))))
    return (answer.status_code, sorted(got), data) == (drawn.status, sorted(sent), drawn.reply)


async def compare(url: str, numbers: Iterator[int], seed: int, n_structured: int) -> Counter[Any]:
    """Return how many exchanges of each kind were identical, and how many were not."""
    counts: Counter[Any] = Counter()

    async def worker(client: httpx2.AsyncClient) -> None:
        for number in numbers:
            drawn = exchange_of(seed, number % CONTROL, n_structured)
            counts[drawn.kind, await is_identical(client, number, drawn)] += 1

    async with httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        await asyncio.gather(*(worker(client) for _ in range(AT_ONCE)))
    return counts


async def run(folder: Path, *, replies: int, bodies: int, seed: int) -> list[list[str]]:
    """Return the rows of the table."""
    upstream = Upstream(seed, replies)
    async with FakeUpstream(upstream).serving() as fake:
        config = prepare(folder, fake.url)
        loop = asyncio.get_running_loop()
        serving = served(folder, config)
        url = await loop.run_in_executor(None, serving.__enter__)
        try:
            numbers = iter(range(replies + bodies))
            counts = await compare(url, numbers, seed, replies)
            spoilt = iter(range(CONTROL, CONTROL + min(CONTROLS, replies + bodies)))
            control = await compare(url, spoilt, seed, replies)
        finally:
            await loop.run_in_executor(None, serving.__exit__, None, None, None)
    kinds = sorted({kind for kind, _ in counts})
    rows = [
        [
            kind,
            f"{counts[kind, True] + counts[kind, False]:,}",
            f"{counts[kind, True]:,}",
            f"{counts[kind, True] + counts[kind, False] - upstream.changed[kind]:,}",
        ]
        for kind in kinds
    ]
    total = [replies + bodies, sum(counts[kind, True] for kind in kinds)]
    asked = replies + bodies - upstream.changed.total()
    rows.append(["all", f"{total[0]:,}", f"{total[1]:,}", f"{asked:,}"])
    same = sum(n for (_, is_same), n in control.items() if is_same)
    rows.append(["control: one bit changed", f"{control.total()}", f"{same}", "-"])
    return rows


def prepare(folder: Path, url: str) -> str:
    """Write a tokenizer and a key, and return the configuration."""
    unit = tokenizer_unit_id(byte_tokenizer(folder).read_bytes())
    write_key_file(folder / "a.key", SecretKey("a", b"k" * 32))
    record = format_record(key_id="a", unit=unit, secret="a.key")  # noqa: S106 - a path
    (folder / "KEYS.toml").write_text(KEYS_HEADER + record)
    return CONFIG.format(url=url, end=END)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=10_000, help="structured or tool calls")
    parser.add_argument("--bodies", type=int, default=10_000, help="other bodies")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(
            run(Path(folder), replies=given.replies, bodies=given.bodies, seed=given.seed)
        )
    print_table(
        "Byte identity", ("what", "exchanges", "replies identical", "requests identical"), rows
    )
    *_, whole, control = rows
    if not (whole[1] == whole[2] == whole[3] and control[2] == "0"):
        raise SystemExit("not identical")


if __name__ == "__main__":
    main()
