"""A proxy on a socket in front of a fake upstream, for one scenario in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

from proxy.app import create_app
from proxy.cli.servers import running
from tests.support.fake_upstream import FakeUpstream
from tests.support.servers import key_ring, model_config, proxy_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from proxy.accounts.book import AccountHolder
    from tests.support.fake_upstream import Behavior
    from watermark.ledger import Ledger


@dataclass(frozen=True)
class Proxied:
    """A client, the proxy's address, and the upstream behind it."""

    client: httpx2.AsyncClient
    url: str
    upstream: FakeUpstream

    async def metric(self, name: str) -> float:
        """The sum of a counter over its labels."""
        text = (await self.client.get("/watermark/metrics")).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    async def raw(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send bytes on a connection of their own."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        await writer.drain()
        return reader, writer


@contextlib.asynccontextmanager
async def proxied(
    behave: Behavior,
    tokenizer: Path,
    *,
    model: dict[str, Any] | None = None,
    url: str | None = None,
    accounts: AccountHolder | None = None,
    open_ledger: Callable[[], Ledger] | None = None,
    **fields: Any,
) -> AsyncIterator[Proxied]:
    """Run a proxy whose model is `m`; nothing of it may outlive the scenario."""
    before = asyncio.all_tasks()
    async with FakeUpstream(behave).serving() as upstream:
        config = proxy_config(
            url or upstream.url, model_config("m", tokenizer, **(model or {})), **fields
        )
        app = create_app(config, key_ring(tokenizer), accounts=accounts, open_ledger=open_ledger)
        async with (
            running(app) as address,
            httpx2.AsyncClient(base_url=address, timeout=20, trust_env=False) as client,
        ):
            yield Proxied(client, address, upstream)
    left = asyncio.all_tasks() - before
    if left:  # transports may need a turn of the loop to close
        _, left = await asyncio.wait(left, timeout=2)
    assert not left, left


def scenario(work: Callable[[], Awaitable[None]]) -> None:
    """Run one scenario within half a minute."""

    async def main() -> None:
        await asyncio.wait_for(work(), 30)

    asyncio.run(main())
