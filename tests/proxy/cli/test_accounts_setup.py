"""What a process notes of accounts is written down, ranked, and shown in the metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from proxy.accounts.watch import Watch
from proxy.cli import accounts_setup
from proxy.cli.accounts_setup import set_up_accounts
from proxy.config import load_config
from proxy.telemetry.harvest import HARVEST_FEATURES
from proxy.telemetry.metrics import Metrics
from tests.proxy.accounts.test_watch import NOON, caller, chat
from tests.proxy.cli.test_accounts import ACCOUNTS, CONFIG
from tests.support.servers import eventually

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def shown(metrics: Metrics) -> dict[str, float]:
    lines = metrics.exposition().decode().splitlines()
    series = (line.rsplit(" ", 1) for line in lines if line.startswith("watermark_harvest_"))
    return {name.removeprefix("watermark_harvest_"): float(value) for name, value in series}


def is_all(metrics: Metrics) -> list[bool]:
    """Return of each name shown whether it is the cluster, with all that was noted."""
    asked = (value for name, value in shown(metrics).items() if name.startswith("requests{"))
    return [value == 80 for value in asked]


def test_who_stands_out_is_in_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_setup, "_FLUSH_S", 0.01)
    monkeypatch.setattr(accounts_setup, "_RANK_S", 0.01)
    (tmp_path / "proxy.toml").write_text(CONFIG)
    (tmp_path / "accounts.toml").write_text(ACCOUNTS)
    (tmp_path / "state").mkdir()
    setup = set_up_accounts(load_config(tmp_path / "proxy.toml"))
    assert setup is not None
    metrics, watch, rng = Metrics(), Watch(b"w" * 32), np.random.default_rng(0)

    async def work() -> None:
        async with setup.noting(watch, metrics):
            for n in range(30):
                watch.asked(caller(f"usual-{n}", f"sk-{n}"), chat(f"{rng.random()}"), now=NOON)
            for i in range(40):
                for name in ("reap-1", "reap-2"):
                    asked = chat(f"Solve this one step by step now: {i}", reasoning_effort="high")
                    watch.asked(caller(name, f"sk-{name}"), asked, now=NOON + 3 * i)
                    watch.decided(caller(name), "marked")
                    watch.delivered(caller(name), rng.integers(0, 900, 700).tolist(), 2)
            await eventually(lambda: sum(is_all(metrics)) == 1, seconds=20)

    asyncio.run(work())
    series = shown(metrics)
    names = {series_name.split('"')[1] for series_name in series}
    (cluster,) = (name for name in names if name.startswith("cluster-"))
    assert len(names) == 20  # of 33
    assert {name.partition("{")[0] for name in series} == set(HARVEST_FEATURES)
    assert series[f'accounts{{name="{cluster}"}}'] == 2
    assert series[f'requests{{name="{cluster}"}}'] == 80
    for feature in ("long_share", "templated_share", "reasoning_share"):
        assert series[f'{feature}{{name="{cluster}"}}'] == 1
    assert series[f'regularity{{name="{cluster}"}}'] < 0.01
    assert series[f'reasons{{name="{cluster}"}}'] >= 4
    assert 'regularity{name="usual-0"}' not in series  # one request has no pause
