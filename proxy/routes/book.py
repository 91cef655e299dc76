"""The ledger of a process while it serves: opened with the application, closed after it.

Rule 1: it is opened in the process that serves, not in the one that forks. Rule 2: it closes once
every reply under way has ended; what a process was stopped in the middle of is in it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from watermark.ledger import Ledger

_DRAIN_SECONDS: Final = 5.0  # for replies that are cut off to end; a supervisor waits for longer
_LOOK_SECONDS: Final = 0.01


class Book:
    """Holds the ledger, where there is one.

    Args:
        open_ledger: Opens it; None for no ledger.
    """

    def __init__(self, open_ledger: Callable[[], Ledger] | None) -> None:
        self._open_ledger = open_ledger
        self._ledger: Ledger | None = None

    def ledger(self) -> Ledger | None:
        """Return the ledger; None until it is open, or for none."""
        return self._ledger

    async def __aenter__(self) -> None:
        """Open it."""
        if self._open_ledger is not None:
            self._ledger = await asyncio.to_thread(self._open_ledger)

    async def __aexit__(self, *error: object) -> None:
        """Wait for replies to end, and for their rows."""
        ledger = self._ledger
        if ledger is None:
            return
        deadline = asyncio.get_running_loop().time() + _DRAIN_SECONDS
        while ledger.n_open and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - the last look
            await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.to_thread(ledger.close)
