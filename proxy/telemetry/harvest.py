"""What looks like a harvest, in Prometheus' form: the accounts and clusters that stand out most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client import Metric

_TEXTS: Final[Mapping[str, str]] = {
    "reasons": "How many of its features stand out",
    "accounts": "Accounts it is made of: one, or those of a cluster",
    "requests": "Requests let in",
    "tokens": "Tokens of its marked replies",
    "long_share": "Share of its marked replies that are long",
    "templated_share": "Share of its requests with the most frequent beginning or end",
    "contexts_share": "Share of all delivered contexts that it has seen",
    "reasoning_share": "Share of its requests that ask for reasoning traces",
    "regularity": "Coefficient of variation of its pauses; near 0 where they are steady",
    "unmarked_share": "Share of its requests of a form that is not marked",
}
HARVEST_FEATURES: Final = tuple(_TEXTS)


class HarvestCollector(Collector):
    """Shows the ranking that was made last."""

    def __init__(self) -> None:
        """Begin before the first ranking."""
        self._families: list[Metric] = []

    def take(self, ranking: Sequence[tuple[str, Mapping[str, float]]]) -> None:
        """Take a ranking: names of accounts or clusters, with what is known of each.

        Args:
            ranking: As many as are to be shown; features by the names in `HARVEST_FEATURES`.
        """
        families: list[Metric] = []
        for feature, text in _TEXTS.items():
            family = GaugeMetricFamily(f"watermark_harvest_{feature}", text, labels=["name"])
            for name, features in ranking:
                if feature in features:
                    family.add_metric([name], features[feature])
            families.append(family)
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return what was taken last."""
        yield from self._families
