"""What the ledger costs the first byte, with an upstream whose first token takes 300 ms.

Three proxies in this process in front of one upstream: one with a ledger, and two without, equal in
everything else. Requests to them take turns, in an order that changes from round to round, so that
the machine's noise meets all. The difference between the two without is what noise alone makes of
such a figure; the intervals are of rounds drawn again (bootstrap, 95%). Beside it, what the ledger
does itself: how long its call at the beginning takes, and how long after it the beginning is
durable; where that is before the first token, nothing waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np

from benchmarks.story import print_table
from proxy.app import create_app
from proxy.cli.serve import SWITCH_SECONDS
from proxy.cli.servers import running
from tests.support.fake_upstream import FakeUpstream, honest
from tests.support.ledgers import make_settings
from tests.support.servers import (
    SELECT_ONLY,
    byte_tokenizer,
    key_ring,
    model_config,
    proxy_config,
)
from watermark.ledger import Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.support.fake_upstream import Turn
    from watermark.ledger import Entry, LedgerSettings

FIRST_TOKEN_SECONDS = 0.3
QUANTILES = (0.5, 0.9, 0.99)
_DRAWS = 1000
_BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "?"}],
    "max_tokens": 4,
    "stream": True,
}


class _Timed(Ledger):
    """Notes what beginnings take, in seconds."""

    def __init__(self, settings: LedgerSettings) -> None:
        self.calls: list[float] = []
        self.durables: list[float] = []
        super().__init__(
            settings,
            machine="machine",
            now=time.time,
            clock=time.monotonic,
            entropy=secrets.token_bytes,
        )

    def begin(self, **given: Any) -> Entry:
        start = time.perf_counter()
        entry = super().begin(**given)
        self.calls.append(time.perf_counter() - start)
        entry.durable.add_done_callback(lambda _: self.durables.append(time.perf_counter() - start))
        return entry


async def _slow(turn: Turn, then: Any) -> None:
    if turn.request.target == b"/v1/completions":
        await asyncio.sleep(FIRST_TOKEN_SECONDS)
    await then(turn)


async def _first_byte(client: httpx2.AsyncClient) -> float:
    start = time.perf_counter()
    async with client.stream("POST", "/v1/chat/completions", json=_BODY) as answer:
        parts = answer.aiter_raw()
        await anext(parts)
        seconds = time.perf_counter() - start
        async for _ in parts:
            pass
    return seconds


async def _measure(
    folder: Path, n_requests: int, at_a_time: int
) -> tuple[dict[str, NDArray[np.float64]], _Timed]:
    """Return seconds to the first byte, by proxy, shape (rounds, at a time); and the ledger."""
    tokenizer = byte_tokenizer(folder)
    ledger = _Timed(make_settings(folder / "ledger"))
    then = honest()
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(
            FakeUpstream(lambda turn: _slow(turn, then)).serving()
        )
        model = model_config("m", tokenizer, splice=SELECT_ONLY)
        config, keys = proxy_config(upstream.url, model), key_ring(tokenizer)
        apps = {
            "without": create_app(config, keys),
            "again": create_app(config, keys),
            "with": create_app(config, keys, open_ledger=lambda: ledger),
        }
        clients = [
            (
                name,
                await stack.enter_async_context(
                    httpx2.AsyncClient(
                        base_url=await stack.enter_async_context(running(app)),
                        timeout=30,
                        trust_env=False,
                    )
                ),
            )
            for name, app in apps.items()
        ]
        times: dict[str, list[list[float]]] = {name: [] for name in apps}
        for number in range(-1, n_requests // at_a_time):
            turn = number % len(clients)
            for name, client in clients[turn:] + clients[:turn]:
                took = await asyncio.gather(*(_first_byte(client) for _ in range(at_a_time)))
                times[name] += [took] if number >= 0 else []
    return {name: np.array(rounds) for name, rounds in times.items()}, ledger


def _delay(one: NDArray[np.float64], other: NDArray[np.float64]) -> list[str]:
    """Return how much later one is at each quantile, in ms, with its interval."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(one), size=(_DRAWS, len(one)))
    again = [np.quantile(one[row], QUANTILES) - np.quantile(other[row], QUANTILES) for row in drawn]
    found = np.quantile(one, QUANTILES) - np.quantile(other, QUANTILES)
    low, high = np.quantile(np.array(again), [0.025, 0.975], axis=0)
    return [
        f"{1e3 * value:.2f} ({1e3 * least:.2f} to {1e3 * most:.2f})"
        for value, least, most in zip(found, low, high, strict=True)
    ]


def main(n_requests: int = 1000, at_a_time: int = 4) -> None:
    """Print the table."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        times, ledger = asyncio.run(_measure(Path(folder), n_requests, at_a_time))
    shown = [
        ("without", times["without"]),
        ("with", times["with"]),
        ("its call", np.array(ledger.calls)),
        ("durable after", np.array(ledger.durables)),
    ]
    rows = [
        (name, *(f"{one:.2f}" for one in 1e3 * np.quantile(values, QUANTILES)))
        for name, values in shown
    ]
    rows += [
        ("delay", *_delay(times["with"], times["without"])),
        ("delay by noise alone", *_delay(times["again"], times["without"])),
    ]
    print_table("First byte", ("ms", "p50", "p90", "p99"), rows)
