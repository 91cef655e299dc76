"""From the configuration to accounts that serve: the digest key, the book, the watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import time
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.accounts.book import AccountHolder, Gateway, KeyDigests, load_book
from proxy.accounts.document import read_secret
from proxy.accounts.suspects import rank_suspects
from proxy.accounts.usage import FILE_NAME
from proxy.accounts.watch_store import WatchStore
from proxy.cli.accounts_reloading import AccountsReloader
from proxy.cli.background import in_background
from proxy.errors import AccountsDownError, ConfigError
from proxy.telemetry.harvest import HARVEST_FEATURES
from watermark.errors import AccountsFileError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.accounts.suspects import Suspect
    from proxy.accounts.watch import Watch
    from proxy.config import AccountsConfig, ProxyConfig
    from proxy.telemetry.metrics import Metrics

_FLUSH_S: Final = 1.0
_RANK_S: Final = 60.0
_RESTS: Final = 20  # times as long as a ranking took, where there are that many accounts
_SHOWN: Final = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountsSetup:
    """What the accounts of a configuration need.

    Attributes:
        path: The `accounts.toml`.
        gateway: Where a header may name the account.
        digest_key: The key of the digests.
        holder: Holds the book.
        store: The file of the shared counters.
    """

    path: Path
    gateway: Gateway
    digest_key: bytes
    holder: AccountHolder
    store: Path

    def reloader(self, *, metrics: Metrics | None, is_quiet: bool) -> AccountsReloader:
        """Return the watch over the file, for this process."""
        return AccountsReloader(
            self.path,
            KeyDigests(self.digest_key),
            self.gateway,
            self.holder,
            metrics=metrics,
            is_quiet=is_quiet,
        )

    @contextlib.asynccontextmanager
    async def noting(self, watch: Watch, metrics: Metrics) -> AsyncIterator[None]:
        """Write down what a process notes, every second and at the end; rank it every minute."""
        try:
            async with (
                in_background(self._flush_often(watch)),
                in_background(self._rank_often(metrics)),
            ):
                yield
        finally:
            await asyncio.to_thread(self._flush, watch)

    async def _flush_often(self, watch: Watch) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            await asyncio.to_thread(self._flush, watch)

    def _flush(self, watch: Watch) -> None:
        try:
            with contextlib.closing(WatchStore(self.store)) as store:
                store.add(watch.take())
        except AccountsDownError as err:
            logger.warning("what was noted of accounts is lost: %s", err)

    async def _rank_often(self, metrics: Metrics) -> None:
        while True:
            seconds = await asyncio.to_thread(self._rank, metrics)
            await asyncio.sleep(max(_RANK_S, _RESTS * seconds))

    def _rank(self, metrics: Metrics) -> float:
        """Show who stands out; return how long that took, in seconds."""
        start = time.perf_counter()
        try:
            with contextlib.closing(WatchStore(self.store)) as store:
                ranked = rank_suspects(store.records())[:_SHOWN]
        except AccountsDownError as err:
            logger.warning("what was noted of accounts cannot be read: %s", err)
        else:
            metrics.harvest_ranked([(one.name, _features_of(one)) for one in ranked])
        return time.perf_counter() - start


def _features_of(suspect: Suspect) -> dict[str, float]:
    """Return what the metrics show of an account or cluster; what is not known is left out."""
    counts = {"reasons": len(suspect.reasons), "accounts": len(suspect.accounts)}
    values = {
        name: float(getattr(suspect.features, name))
        for name in HARVEST_FEATURES
        if name not in counts
    }
    return counts | {name: value for name, value in values.items() if not math.isnan(value)}


def set_up_accounts(config: ProxyConfig) -> AccountsSetup | None:
    """Read and check the accounts, None where the configuration has none.

    Raises:
        ConfigError: The digest key cannot be made.
        AccountsFileError: A file cannot be used.
    """
    accounts = config.accounts
    if accounts is None:
        return None
    digest_key = read_digest_key(accounts, Path(config.state))
    gateway = gateway_of(accounts)
    path = Path(accounts.file)
    book = load_book(path, KeyDigests(digest_key), gateway)
    return AccountsSetup(
        path=path,
        gateway=gateway,
        digest_key=digest_key,
        holder=AccountHolder(book),
        store=store_path(config),
    )


def store_path(config: ProxyConfig) -> Path:
    """Return the file of the shared counters."""
    return Path(config.state) / FILE_NAME


def gateway_of(accounts: AccountsConfig) -> Gateway:
    """Return where a header may name the account."""
    networks = tuple(ip_network(one) for one in accounts.gateways)
    return Gateway(accounts.gateway_header.lower().encode(), networks)


def read_digest_key(accounts: AccountsConfig, state: Path) -> bytes:
    """Return the key of the digests; drawn where there is none yet.

    Raises:
        ConfigError: It cannot be written.
        AccountsFileError: It cannot be read, or others can read it.
    """
    path = Path(accounts.digest_key or state / "accounts.key")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        pass
    except OSError as err:
        raise ConfigError(f"cannot write {path}: {err.strerror}; set accounts.digest_key") from err
    else:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
    key = read_secret(path)
    if len(key) < 32:  # noqa: PLR2004 - 128 bits in hex
        raise AccountsFileError(f"{path} holds no key of 32 characters or more; remove it")
    return key
