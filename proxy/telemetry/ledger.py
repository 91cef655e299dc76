"""The ledger's own counts in Prometheus' form; nothing where there is no ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from watermark.ledger import State, WriterStats


class LedgerCollector(Collector):
    """Shows what the ledger said last."""

    def __init__(self) -> None:
        """Begin without a ledger."""
        self._families: list[Metric] = []
        self._is_sealed: bool | None = None
        self._seal_failures = 0

    def take(self, state: State, stats: WriterStats, *, n_open: int) -> None:
        """Take what the ledger says now."""
        rows = CounterMetricFamily(
            "watermark_ledger_rows", "Rows on the disk, by kind", labels=["kind"]
        )
        for kind, count in stats.rows.items():
            rows.add_metric([kind.name.lower()], count)
        now = GaugeMetricFamily(
            "watermark_ledger_state", "1 for the state the ledger is in", labels=["state"]
        )
        for one in type(state):
            now.add_metric([one.name.lower()], one is state)
        self._families = [
            rows,
            now,
            _counter("commits", "Commits made", stats.commits),
            _counter("commit_seconds", "Time spent in commits", stats.commit_seconds),
            _counter("refused", "Replies not marked for want of the ledger", stats.refused),
            _counter("lost_ends", "Ends that could not be kept", stats.lost),
            _counter("gaps", "Times in which it could not be written", stats.gaps),
            _gauge("waiting_rows", "Rows not yet on the disk", stats.waiting),
            _gauge("open_replies", "Replies under way", n_open),
            _gauge("folder_bytes", "Bytes that are not in the store yet", stats.folder_bytes),
        ]

    def sealed(self, *, is_done: bool) -> None:
        """Take whether what is closed was sealed and sent, when that was last tried."""
        self._is_sealed = is_done
        self._seal_failures += not is_done

    def collect(self) -> Iterable[Metric]:
        """Return what was taken last; of sealing nothing until it was tried."""
        yield from self._families
        if self._is_sealed is not None:
            yield _gauge(
                "last_seal_success", "Whether the last try sealed: 1 or 0", self._is_sealed
            )
            yield _counter("seal_failures", "Tries to seal that failed", self._seal_failures)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"watermark_ledger_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"watermark_ledger_{name}", text, value=value)
