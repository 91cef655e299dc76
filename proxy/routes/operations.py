"""What operators ask of the proxy itself: is it up, and what has it counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, Response

if TYPE_CHECKING:
    from starlette.requests import Request

    from proxy.telemetry.metrics import Metrics


class Operations:
    """The endpoints under `/watermark/`."""

    def __init__(self, metrics: Metrics) -> None:
        """Report on one proxy."""
        self._metrics = metrics

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - a handler's form
        """Serve GET /watermark/health."""
        return PlainTextResponse("ok\n")

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002 - a handler's form
        """Serve GET /watermark/metrics in Prometheus' text form."""
        return PlainTextResponse(
            self._metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )
