"""An engine that drops its mark raises the alarm within 50 replies; one that marks raises none."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from proxy.config import SelftestConfig
from proxy.routes.checking import Checker
from proxy.sampling.questions import Path
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.selftest import FLOORS, LEAST_SCORED, WINDOW, EffectWatch, SelfTest, Series
from tests.support.servers import key_record
from watermark.keys import SecretKey
from watermark.text import WORDS_V1, WordsUnit

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.sampling.serving import ServedModel

SERIES = Series("default", "native", "m")
TOKENS = 60


def replies(effect: float, count: int, *, seed: int, tokens: int = TOKENS) -> list[float]:
    """Return the excess of replies whose scores have a mean of 1 + effect."""
    rng = np.random.default_rng(seed)
    return [
        float(rng.standard_exponential(tokens).sum() * (1 + effect) - tokens) for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_mark_that_goes_is_missed_within_fifty_replies(seed: int) -> None:
    watch = EffectWatch(FLOORS["native"])
    for excess in replies(0.9, 80, seed=seed):
        verdict = watch.add(excess, TOKENS)
        assert verdict is None or not verdict.is_alarm
    alarms = [watch.add(excess, TOKENS) for excess in replies(0.0, WINDOW, seed=seed + 100)]
    assert any(one is not None and one.is_alarm for one in alarms)


@pytest.mark.parametrize("path", ["native", "splice"])
def test_an_engine_that_never_marked_is_found_out_by_the_floor(path: str) -> None:
    for seed in range(50):
        watch = EffectWatch(FLOORS[path])
        alarms = [watch.add(excess, TOKENS) for excess in replies(0.0, WINDOW, seed=seed)]
        assert any(one is not None and one.is_alarm for one in alarms)


def test_a_mark_that_holds_raises_no_alarm() -> None:
    """100 series of 300 replies, at the strength of `select` and at that of `splice`."""
    for effect, path in ((0.4, "select"), (0.9, "splice")):
        for seed in range(100):
            watch = EffectWatch(FLOORS[path])
            verdicts = [watch.add(one, TOKENS) for one in replies(effect, 300, seed=seed)]
            assert not any(one is not None and one.is_alarm for one in verdicts)


def test_little_text_says_nothing() -> None:
    watch = EffectWatch(0.3)
    assert watch.add(-20.0, LEAST_SCORED - 1) is None
    verdict = watch.add(0.0, 1)
    assert verdict is not None
    assert verdict.effect == pytest.approx(-0.2)


class Served:
    """A model of which only the unit and the name matter."""

    unit = WordsUnit()
    config = type("Config", (), {"name": "m"})


def check(texts: list[str], *, share: float = 1.0, key_ids: tuple[str, ...] = ("test",)) -> Metrics:
    """Have texts checked, those of one key after those of the other."""
    metrics = Metrics()

    async def work() -> None:
        checker = Checker(metrics, share=share, entropy=lambda: 7)
        for key_id in key_ids:
            secret = SecretKey(key_id, b"k" * 32)
            record = replace(key_record(WORDS_V1), key_id=key_id, secret=secret)
            for text in texts:
                checker.offer(cast("ServedModel", Served()), record, Path.NATIVE, [text])
                await checker.idle()

    asyncio.run(work())
    return metrics


def plain_text(seed: int) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(f"word{number}" for number in rng.integers(5000, size=TOKENS))


def value(metrics: Metrics, name: str) -> float:
    lines = metrics.exposition().decode().splitlines()
    found = [line for line in lines if line.startswith(name + "{")]
    return float(found[0].split()[-1]) if found else math.nan


def test_unmarked_replies_of_a_native_path_raise_metric_and_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="proxy.selftest")
    metrics = check([plain_text(seed) for seed in range(WINDOW)], share=SelftestConfig().share)
    assert value(metrics, "watermark_selftest_alarm") == 1
    assert value(metrics, "watermark_selftest_replies_total") == WINDOW
    assert value(metrics, "watermark_selftest_effect") < 0.15
    assert value(metrics, "watermark_selftest_baseline") == 0.3
    (line,) = caplog.messages
    assert "the mark is gone: scope default, path native, model m" in line
    assert "word" not in line


def test_after_the_first_of_a_series_a_share_is_checked() -> None:
    metrics = check([plain_text(seed) for seed in range(WINDOW + 100)], share=0.2)
    assert 8 <= value(metrics, "watermark_selftest_replies_total") - WINDOW <= 35


def test_another_key_begins_a_series_anew() -> None:
    """An engine may go on with the key that it had."""
    texts = [plain_text(seed) for seed in range(WINDOW + 5)]
    metrics = check(texts, share=1e-9, key_ids=("test", "next", "test"))
    assert value(metrics, "watermark_selftest_replies_total") == 2 * WINDOW


def test_the_first_of_a_series_are_checked_though_they_come_at_once() -> None:
    metrics = Metrics()

    async def work() -> None:
        checker = Checker(metrics, share=1e-9, entropy=lambda: 7)
        for scope in ("one", "two", "one", "two"):
            record = replace(key_record(WORDS_V1), scope=scope)
            for _ in range(WINDOW // 2):
                checker.offer(cast("ServedModel", Served()), record, Path.NATIVE, ["a b c d"])
        await checker.idle()

    asyncio.run(work())
    assert value(metrics, "watermark_selftest_replies_total") == WINDOW


def test_a_text_without_positions_is_no_evidence() -> None:
    metrics = check(["word"])
    assert math.isnan(value(metrics, "watermark_selftest_effect"))


def test_a_check_that_fails_is_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Callable[[], None]:
        raise RuntimeError("secret text")

    monkeypatch.setattr(SelfTest, "check", fail)
    check(["a b c d e f"])
    assert caplog.messages == ["a reply could not be checked (RuntimeError)"]
