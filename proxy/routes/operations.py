"""What operators ask of the proxy itself: is it up, and what has it counted."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, Response

from proxy.routes.exchange import is_trusted

if TYPE_CHECKING:
    from starlette.requests import Request

    from proxy.telemetry.metrics import Metrics


class Operations:
    """The endpoints under `/watermark/`."""

    def __init__(self, metrics: Metrics, trusted: frozenset[str]) -> None:
        """Report on one proxy.

        Args:
            metrics: The counters.
            trusted: Who may read them: read before and after a request of one's own, they tell
                whether it was marked.
        """
        self._metrics = metrics
        self._trusted = trusted

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - a handler's form
        """Serve GET /watermark/health."""
        return PlainTextResponse("ok\n")

    async def metrics(self, request: Request) -> Response:
        """Serve GET /watermark/metrics in Prometheus' text form, to trusted callers."""
        if not is_trusted(request.scope["headers"], self._trusted):
            message = "the counters are for the callers that disclosure.callers names\n"
            return PlainTextResponse(message, HTTPStatus.FORBIDDEN)
        return PlainTextResponse(
            self._metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )
