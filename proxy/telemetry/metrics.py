"""Counters in Prometheus' form.

Labels come from closed sets (reasons, paths, configured models), so neither a caller nor a text
can make a new one.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, generate_latest

OTHER_MODEL: Final = "other"


class Metrics:
    """The counters of one proxy process."""

    def __init__(self) -> None:
        """Start every counter at zero, in a registry of its own."""
        self._registry = CollectorRegistry()
        self._decisions = Counter(
            "watermark_decisions",
            "Requests by decision",
            ("model", "reason", "path", "key"),
            registry=self._registry,
        )
        self._tokens = Counter(
            "watermark_delivered_tokens",
            "Tokens delivered in marked replies",
            ("model", "path"),
            registry=self._registry,
        )
        self._drafts = Counter(
            "watermark_upstream_drafts",
            "Upstream requests made to mark",
            ("model", "path"),
            registry=self._registry,
        )
        self._drafted = Counter(
            "watermark_drafted_tokens",
            "Tokens that the upstream generated to mark",
            ("model", "path"),
            registry=self._registry,
        )
        self._failures = Counter(
            "watermark_failures",
            "Requests that ended in an error of ours",
            ("kind",),
            registry=self._registry,
        )

    def decided(
        self, model: str | None, *, reason: str, path: str = "none", key_id: str | None = None
    ) -> None:
        """Count a decision; None for a model that is not configured."""
        self._decisions.labels(model or OTHER_MODEL, reason, path, key_id or "").inc()

    def delivered(self, model: str, path: str, tokens: int) -> None:
        """Count tokens that left in a marked reply."""
        self._tokens.labels(model, path).inc(tokens)

    def drafted(self, model: str, path: str, tokens: int) -> None:
        """Count one upstream request and what it generated."""
        self._drafts.labels(model, path).inc()
        self._drafted.labels(model, path).inc(tokens)

    def failed(self, error: Exception) -> None:
        """Count a failure by its class."""
        self._failures.labels(type(error).__name__).inc()

    def exposition(self) -> bytes:
        """Return all counters in Prometheus' text form."""
        return generate_latest(self._registry)
