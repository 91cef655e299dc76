"""What operators ask of the proxy itself: is it up, and what has it counted."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, Response

from proxy.routes.exchange import is_trusted

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from proxy.sampling.keys import KeyHolder
    from proxy.telemetry.metrics import Metrics
    from watermark.ledger import Ledger


class Operations:
    """The endpoints under `/watermark/`."""

    def __init__(
        self,
        metrics: Metrics,
        trusted: frozenset[str],
        keys: KeyHolder,
        now: Callable[[], float],
        ledger: Callable[[], Ledger | None] = lambda: None,
    ) -> None:
        """Report on one proxy.

        Args:
            metrics: The counters.
            trusted: Who may read them: read before and after a request of one's own, they tell
                whether it was marked.
            keys: The keys in force.
            now: Seconds since the epoch.
            ledger: Where it is written what was delivered; None for nowhere.
        """
        self._metrics = metrics
        self._trusted = trusted
        self._keys = keys
        self._now = now
        self._ledger = ledger

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - a handler's form
        """Serve GET /watermark/health."""
        return PlainTextResponse("ok\n")

    async def metrics(self, request: Request) -> Response:
        """Serve GET /watermark/metrics in Prometheus' text form, to trusted callers."""
        if not is_trusted(request.scope["headers"], self._trusted):
            message = "the counters are for the callers that disclosure.callers names\n"
            return PlainTextResponse(message, HTTPStatus.FORBIDDEN)
        now = datetime.fromtimestamp(self._now(), UTC)
        ends = self._keys.current.ends()
        self._metrics.keys_expire({s: (end - now).total_seconds() for s, end in ends.items()})
        ledger = self._ledger()
        if ledger is not None:
            self._metrics.ledger_is(ledger.state, ledger.stats, n_open=ledger.n_open)
        return PlainTextResponse(
            self._metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )
