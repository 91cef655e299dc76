"""The self-test beside the answers: a share of them, in a thread, never in anybody's way.

Rule: the first `WINDOW` answers of a series under a key are all checked, and a share of what comes
after. An engine that never marked, or not with the new key, is known by then; a process that
starts begins anew. What happens later without the proxy's knowledge, such as an engine that
comes back without its switch, takes `WINDOW` / share answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from proxy.telemetry.selftest import WINDOW, SelfTest, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.sampling.questions import Path
    from proxy.sampling.serving import ServedModel
    from proxy.telemetry.metrics import Metrics
    from proxy.telemetry.selftest import Verdict
    from watermark.keys import KeyRecord

_MOST_WAITING: Final = 64  # answers; of a share, none while the thread is as far behind
_LOG = logging.getLogger("proxy.selftest")


class Checker:
    """Draws the answers that are checked, and has them checked one after another.

    Args:
        metrics: The counters.
        share: Share of the answers that are checked once a series has begun; above 0, at most 1.
        entropy: Draws 256 fresh random bits.
    """

    def __init__(self, metrics: Metrics, *, share: float, entropy: Callable[[], int]) -> None:
        self._metrics = metrics
        self._test = SelfTest()
        self._alarms: set[Series] = set()
        self._offered: Counter[tuple[Series, str]] = Counter()  # by key id, up to `WINDOW`
        self._share = share
        self._entropy = entropy
        self._rng: np.random.Generator | None = None  # made in the process that serves
        self._lock = asyncio.Lock()
        self._waiting: set[asyncio.Task[None]] = set()

    def offer(
        self,
        served: ServedModel,
        record: KeyRecord,
        path: Path,
        texts: Sequence[str],
        earlier: Sequence[str] = (),
    ) -> None:
        """Have an answer checked, if it is drawn.

        Args:
            served: The model.
            record: The key that marked it.
            path: How it was marked.
            texts: The choices as delivered.
            earlier: The assistant's turns before it.
        """
        series = Series(record.scope, path.value, served.config.name)
        if not self._begins(series, record) and not self._is_drawn():
            return
        work = self._check(series, record, served, texts, earlier)
        task = asyncio.get_running_loop().create_task(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def idle(self) -> None:
        """Wait until everything that was offered is checked."""
        while self._waiting:
            await asyncio.wait(set(self._waiting))

    def _begins(self, series: Series, record: KeyRecord) -> bool:
        """Return whether an answer is among the first of its series under its key."""
        place = (series, record.key_id)
        self._offered[place] = min(self._offered[place] + 1, WINDOW + 1)
        return self._offered[place] <= WINDOW

    def _is_drawn(self) -> bool:
        if len(self._waiting) >= _MOST_WAITING:
            return False
        if self._rng is None:
            self._rng = np.random.Generator(np.random.PCG64(self._entropy()))
        return bool(self._rng.random() < self._share)

    async def _check(
        self,
        series: Series,
        record: KeyRecord,
        served: ServedModel,
        texts: Sequence[str],
        earlier: Sequence[str],
    ) -> None:
        async with self._lock:
            try:
                verdict = await asyncio.to_thread(
                    self._test.check, series, record, served.unit, texts, earlier
                )
            except Exception as error:  # noqa: BLE001 - a reply is out; only its check failed
                _LOG.warning("a reply could not be checked (%s)", type(error).__name__)
                return
        self._metrics.checked(series, len(texts))
        if verdict is not None:
            self._tell(series, verdict)

    def _tell(self, series: Series, verdict: Verdict) -> None:
        self._metrics.effect_is(series, verdict)
        was_alarm = series in self._alarms
        (self._alarms.add if verdict.is_alarm else self._alarms.discard)(series)
        if verdict.is_alarm and not was_alarm:
            _LOG.error(
                "the mark is gone: scope %s, path %s, model %s has effect %.2f of a baseline of "
                "%.2f; see that the engine marks, or take the path out of the config",
                *series,
                verdict.effect,
                verdict.baseline,
            )
        elif was_alarm and not verdict.is_alarm:
            _LOG.warning("the mark is back: scope %s, path %s, model %s", *series)
