"""Accounts for tests: books from text, and a proxy behind the door."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from proxy.accounts.book import AccountBook, AccountHolder, Gateway, KeyDigests
from proxy.accounts.document import parse_accounts
from proxy.accounts.watch import Watch
from proxy.app import create_app
from proxy.cli.servers import running
from tests.support.fake_upstream import FakeUpstream
from tests.support.servers import key_ring, model_config, proxy_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fake_upstream import Behavior
    from watermark.keys import KeyRing

DIGESTS = KeyDigests(b"d" * 32)
GATEWAY = Gateway(b"x-account", (ip_network("127.0.0.0/8"),))


def digest(key: str) -> str:
    """Return the digest of a caller's key, as the file has it."""
    return DIGESTS.of(key.encode())


def book(text: str, *, gateway: Gateway | None = None, **secrets: bytes) -> AccountBook:
    """Return the accounts of a text; `schema` is added."""
    document = parse_accounts(f"schema = 1\n{text}", path=Path("accounts.toml"))
    named = {f"file:{name}": value for name, value in secrets.items()}
    return AccountBook(document, DIGESTS, gateway=gateway, secrets=named)


def account(name: str, *keys: str, **fields: Any) -> str:
    """Return one `[[account]]`."""
    lines = ["[[account]]", f'name = "{name}"', f"keys = {[digest(key) for key in keys]}"]
    for field, value in fields.items():
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        lines.append(f"{field} = {shown}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Guarded:
    """A client, the accounts behind it, and the upstream behind them."""

    client: httpx2.AsyncClient
    holder: AccountHolder
    upstream: FakeUpstream
    watch: Watch

    async def ask(
        self, key: str | None = None, path: str = "/v1/completions", **body: Any
    ) -> httpx2.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        asked = {"model": "m", "prompt": "hello", "max_tokens": 8} | body
        return await self.client.post(path, json=asked, headers=headers)

    async def metric(self, name: str) -> float:
        text = (await self.client.get("/watermark/metrics")).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@contextlib.asynccontextmanager
async def guarded(
    accounts: AccountBook,
    behave: Behavior,
    tokenizer: Path,
    state: Path,
    *,
    ring: KeyRing | None = None,
    model: dict[str, Any] | None = None,
) -> AsyncIterator[Guarded]:
    """Run a proxy with accounts in front of a fake upstream."""
    holder, watch = AccountHolder(accounts), Watch(b"w" * 32)
    async with FakeUpstream(behave).serving() as upstream:
        served = model_config("m", tokenizer, **(model or {}))
        config = proxy_config(upstream.url, served, state=str(state))
        keys = ring or key_ring(tokenizer)
        app = create_app(config, keys, accounts=holder, watch=watch)
        async with (
            running(app) as url,
            httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client,
        ):
            yield Guarded(client, holder, upstream, watch)
            await asyncio.sleep(0)
