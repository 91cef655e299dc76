"""Reading the accounts again: everything is checked before one reference is replaced.

A file that is refused changes nothing; what is said about it is one line, with file and line.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxy.accounts.book import load_book
from proxy.accounts.document import secret_path
from watermark.errors import WatermarkError

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.accounts.book import AccountHolder, Gateway, KeyDigests
    from proxy.telemetry.metrics import Metrics

_Stamp = tuple[int, ...]

LOOK_SECONDS: Final = 0.1  # a ban is to be felt within a second, by a thousand streams

logger = logging.getLogger(__name__)


class AccountsReloader:
    """Reads one `accounts.toml` for one process; not to be used from two threads at a time."""

    def __init__(
        self,
        path: Path,
        digests: KeyDigests,
        gateway: Gateway,
        holder: AccountHolder,
        *,
        metrics: Metrics | None = None,
        is_quiet: bool = False,
    ) -> None:
        """Watch what a holder's book was loaded from.

        Args:
            path: The file.
            digests: Makes the digests of callers' keys.
            gateway: Where a header may name the account.
            holder: Holds the book.
            metrics: Where it is said whether the file was taken.
            is_quiet: Whether somebody else writes the log lines.
        """
        self.look_seconds = LOOK_SECONDS
        self._path = path
        self._digests = digests
        self._gateway = gateway
        self._holder = holder
        self._metrics = metrics
        self._is_quiet = is_quiet
        self._seen = self._look()

    def step(self, *, is_asked: bool = False) -> None:
        """Take the file where it has changed, or somebody asks."""
        now = self._look()
        if now != self._seen or is_asked:
            self._seen = now
            self._reload()

    def _reload(self) -> None:
        try:
            book = load_book(self._path, self._digests, self._gateway)
        except (WatermarkError, OSError) as err:
            self._say(" ".join(str(err).split()))
            return
        self._holder.replace(book)
        if self._metrics is not None:
            self._metrics.accounts_read(is_taken=True)
        if not self._is_quiet:
            logger.info("accounts reloaded: %d", len(book.document.accounts))

    def _say(self, error: str) -> None:
        is_known = error == self._holder.error
        self._holder.refuse(error)
        if self._metrics is not None:
            self._metrics.accounts_read(is_taken=False)
        if not self._is_quiet and not is_known:
            logger.error("accounts not reloaded, those before stay in force: %s", error)

    def _look(self) -> dict[Path, _Stamp]:
        """Return how the file and those that the accounts in force name are now."""
        entries = self._holder.current.document.accounts
        named = {entry.upstream_key for entry in entries if entry.upstream_key is not None}
        paths = [self._path, *(secret_path(one, self._path.parent) for one in sorted(named))]
        return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> _Stamp:
    """Return what tells a file from one that was changed or put in its place."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
