"""What the ledger costs the first byte, with an upstream whose first token takes 300 ms.

Two proxies in this process, equal but for the ledger, in front of one upstream; requests to them
take turns, so that the machine's noise meets both. Beside the difference, what the ledger does
itself: how long its call at the beginning takes, and how long after it the beginning is durable;
where that is before the first token, nothing waits for it.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np

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
    from tests.support.fake_upstream import Turn
    from watermark.ledger import Entry, LedgerSettings

FIRST_TOKEN_SECONDS = 0.3
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


async def _measure(folder: Path, n_requests: int, at_a_time: int) -> dict[str, list[float]]:
    tokenizer = byte_tokenizer(folder)
    ledger = _Timed(make_settings(folder / "ledger"))
    then = honest()
    async with FakeUpstream(lambda turn: _slow(turn, then)).serving() as upstream:
        model = model_config("m", tokenizer, splice=SELECT_ONLY)
        config, keys = proxy_config(upstream.url, model), key_ring(tokenizer)
        plain = create_app(config, keys)
        kept = create_app(config, keys, open_ledger=lambda: ledger)
        async with (
            running(plain) as one,
            running(kept) as other,
            httpx2.AsyncClient(base_url=one, timeout=30, trust_env=False) as without,
            httpx2.AsyncClient(base_url=other, timeout=30, trust_env=False) as with_ledger,
        ):
            times: dict[str, list[float]] = {"without": [], "with": []}
            for number in range(-1, n_requests // at_a_time):
                for name, client in (("without", without), ("with", with_ledger)):
                    took = await asyncio.gather(*(_first_byte(client) for _ in range(at_a_time)))
                    times[name] += took if number >= 0 else []
    return times | {"its call": ledger.calls, "durable after": ledger.durables}


def main(n_requests: int = 1000, at_a_time: int = 4) -> None:
    """Print the table."""
    sys.setswitchinterval(SWITCH_SECONDS)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        times = asyncio.run(_measure(Path(folder), n_requests, at_a_time))
    print("ledger   first byte ms: p50      p90      p99")
    quantiles = {}
    for name, values in times.items():
        quantiles[name] = np.quantile(np.array(values) * 1e3, [0.5, 0.9, 0.99])
        print(
            f"{name:<16}{quantiles[name][0]:>11.2f}{quantiles[name][1]:>9.2f}"
            f"{quantiles[name][2]:>9.2f}"
        )
    late = quantiles["with"] - quantiles["without"]
    print(f"{'delay':<16}{late[0]:>11.2f}{late[1]:>9.2f}{late[2]:>9.2f}")
