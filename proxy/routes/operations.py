"""What operators ask of the proxy itself: is it up, and what has it counted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from proxy.sampling.keys import KeyHolder
    from proxy.telemetry.metrics import Metrics


class Operations:
    """The endpoints under `/watermark/`."""

    def __init__(self, metrics: Metrics, keys: KeyHolder, now: Callable[[], float]) -> None:
        """Report on one proxy.

        Args:
            metrics: Its counters.
            keys: Its keys.
            now: Seconds since the epoch.
        """
        self._metrics = metrics
        self._keys = keys
        self._now = now

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - a handler's form
        """Serve GET /watermark/health."""
        return PlainTextResponse("ok\n")

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002 - a handler's form
        """Serve GET /watermark/metrics in Prometheus' text form."""
        now = datetime.fromtimestamp(self._now(), UTC)
        ends = self._keys.current.ends()
        self._metrics.keys_expire({s: (end - now).total_seconds() for s, end in ends.items()})
        return PlainTextResponse(
            self._metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )
