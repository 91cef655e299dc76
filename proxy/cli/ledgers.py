"""The ledger of a serving process: made for first steps, opened, and sealed hour by hour.

Sealing is another process, so that nothing of it is in the way of an answer. Each worker starts
one now and then; they keep out of each other's way by a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.cli.background import in_background
from watermark.ledger import Ledger, create_ledger, load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from proxy.config import LedgerConfig
    from proxy.telemetry.metrics import Metrics
    from watermark.ledger import LedgerSettings

_QUICKSTART_NAME: Final = "quickstart.invalid/ledger"
_LEAST_SECONDS: Final = 1.0
_SHARE_OF_SPAN: Final = 10  # a file is sealed within a tenth of its span, once it is closed
_MOST_SECONDS: Final = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOpener:
    """A ledger that was read and is not open yet.

    Attributes:
        settings: What its file says.
    """

    settings: LedgerSettings

    def open(self) -> Ledger:
        """Open it, in the process that serves.

        Raises:
            LedgerError: It cannot be used.
            KeyFileError: Its secret cannot be read.
        """
        return Ledger(
            self.settings,
            machine=platform.node(),
            now=time.time,  # noqa: TID251 - the command line
            clock=time.monotonic,
            entropy=secrets.token_bytes,
        )

    @contextlib.asynccontextmanager
    async def sealing(self, metrics: Metrics) -> AsyncIterator[None]:
        """Seal what is closed, again and again, and count what fails."""
        if not self.settings.store:
            yield
            return
        async with in_background(self._seal_on(metrics)):
            yield

    async def _seal_on(self, metrics: Metrics) -> None:
        span = self.settings.limits.file_s / _SHARE_OF_SPAN
        said = ""
        while True:
            await asyncio.sleep(min(max(span, _LEAST_SECONDS), _MOST_SECONDS))
            error = await self._seal()
            metrics.ledger_sealed(is_done=not error)
            if error and error != said:
                logger.error("the ledger is not sealed: %s", error)
            said = error

    async def _seal(self) -> str:
        """Seal once; return what is wrong, empty for nothing."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "watermark", "ledger", "seal", "--quiet", "--ledger", str(self.settings.path)),
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            _, said = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        first = said.decode(errors="replace").strip().partition("\n")[0]
        return "" if process.returncode == 0 else first.removeprefix("watermark: ") or "it failed"


def ledger_opener(config: LedgerConfig, say: Callable[[str], None]) -> LedgerOpener:
    """Read a ledger's file; make it where that is wanted and there is none.

    Raises:
        LedgerError: It cannot be read or made, or its secret or signing key is not usable.
        KeyFileError: Its secret or signing key cannot be read.
    """
    path = Path(config.file)
    if config.create_if_missing and not path.exists():
        create_ledger(
            path,
            name=_QUICKSTART_NAME,
            secret=secrets.token_bytes(32),
            seed=secrets.token_bytes(32),
        )
        say(f"made a ledger of what is delivered: {path}")
    settings = load_settings(path)
    settings.secret()
    settings.node_or(platform.node())
    return LedgerOpener(settings=settings)
