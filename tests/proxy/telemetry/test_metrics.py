"""What the metrics are called: in the README, and in the alerts on them."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.telemetry.harvest import HARVEST_FEATURES
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.selftest import Series, Verdict
from watermark.ledger import Kind, State, WriterStats

ROOT = Path(__file__).parents[3]


def exposition() -> str:
    """Return what a proxy shows that has everything."""
    metrics = Metrics()
    metrics.ledger_is(State.OPEN, WriterStats(rows=dict.fromkeys(Kind, 0)), n_open=0)
    metrics.ledger_sealed(is_done=True)
    metrics.harvest_ranked([("a", dict.fromkeys(HARVEST_FEATURES, 0.5))])
    series = Series("default", "native", "m")
    metrics.effect_is(series, Verdict(effect=0.0, baseline=0.3, is_alarm=True))
    return metrics.exposition().decode()


def test_alerts_are_on_metrics_and_labels_that_there_are() -> None:
    alerts = (ROOT / "configs" / "alerts.yml").read_text()
    there = set(re.findall(r"^(\w+)", exposition(), re.MULTILINE))
    watched = re.findall(r"watermark_\w+", alerts)
    assert len(watched) >= 5
    assert set(watched) <= there
    assert "watermark_selftest_alarm" in watched
    used = set(re.findall(r"\$labels\.(\w+)", alerts)) - {"instance"}
    assert used == {"scope", "path", "model"}
    for label in used:
        assert re.search(rf'^watermark_selftest_alarm{{.*\b{label}="', exposition(), re.MULTILINE)


def test_the_readme_names_every_metric() -> None:
    words = set(re.findall(r"`(\w+)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    prefixes = [word for word in words if word.startswith("watermark_") and word.endswith("_")]
    known = words | {prefix + word for prefix in prefixes for word in words}
    named = set(re.findall(r"^# TYPE (\w+)", exposition(), re.MULTILINE))
    assert len(named) > 30
    assert {name for name in named if not name.endswith("_created")} <= known
