"""The running self-test: is the mark in what was delivered?

Delivered text goes through the own detector, reply by reply, and the effect (mean excess of the
score over its null mean, in standard deviations a scored position) is followed by scope, path and
model. An alarm is raised where it has certainly fallen below half its baseline: engines drop marks
silently, and a proxy in front of them would go on calling replies marked.

Rule 1: the window is the last `WINDOW` replies that were checked; nothing is said of fewer than
`LEAST_SCORED` positions, and never a reply's own score: while the key is secret no score of a
single position leaves.
Rule 2: the baseline is the effect of the first `WINDOW` replies, and at least the floor of the
path: an engine that never marked has none of its own.
Rule 3: "certainly": the effect and three standard errors are below half the baseline. A mark that
holds sends no alarm but with the chance of three standard errors, and one that is gone needs
(6 / baseline)^2 positions: 400 at the floor of `native` and `splice`.
Rule 4: a static list (`bias`) has an effect of its own on text without a mark, the same for all of
one key's replies: of a standard deviation of .06 to .1 over keys. Hence its floor.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from watermark.detection import Detector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.keys import KeyRecord
    from watermark.text import Unit

WINDOW: Final = 50  # replies
LEAST_SCORED: Final = 100  # positions
FLOORS: Final = {"native": 0.3, "splice": 0.3, "select": 0.1, "reply": 0.02, "bias": 0.2}
_SURE: Final = 3.0  # standard errors


class Series(NamedTuple):
    """What is followed together."""

    scope: str
    path: str
    model: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the last replies of a series say.

    Attributes:
        effect: Mean excess a scored position.
        baseline: What it is held against.
        is_alarm: Whether it has certainly fallen below half of that.
    """

    effect: float
    baseline: float
    is_alarm: bool


@dataclass(slots=True)
class EffectWatch:
    """The effect of one series, reply by reply.

    Attributes:
        floor: Least baseline.
    """

    floor: float
    _window: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _baseline: float | None = None

    def add(self, excess: float, n_scored: int) -> Verdict | None:
        """Add a reply; return what the window says, None while it holds too little.

        Args:
            excess: Sum of the scores less their null mean, in null standard deviations of one.
            n_scored: How many were summed.
        """
        self._window.append((excess, n_scored))
        n = sum(count for _, count in self._window)
        if n < LEAST_SCORED:
            return None
        effect = sum(part for part, _ in self._window) / n
        if self._baseline is None and len(self._window) == WINDOW:
            self._baseline = max(effect, self.floor)
        baseline = self.floor if self._baseline is None else self._baseline
        is_alarm = effect + _SURE / math.sqrt(n) < baseline / 2
        return Verdict(effect, baseline, is_alarm)


class SelfTest:
    """Puts replies through the detector, and follows their series; for one thread at a time."""

    def __init__(self) -> None:
        """Begin without any reply."""
        self._watches: dict[Series, EffectWatch] = {}
        self._detectors: dict[tuple[str, str], Detector] = {}

    def check(
        self,
        series: Series,
        record: KeyRecord,
        unit: Unit,
        texts: Sequence[str],
        earlier: Sequence[str] = (),
    ) -> Verdict | None:
        """Put replies through the detector; return what their series says by now.

        Args:
            series: What they are followed with.
            record: The key that marked them.
            unit: How it cuts text.
            texts: The choices of one answer, as delivered.
            earlier: The assistant's earlier turns, whose contexts were not marked again.
        """
        detector = self._detector(record, unit)
        verdict: Verdict | None = None
        for text in texts:
            excess, n_scored = _excess(detector, text, earlier)
            if n_scored:
                watch = self._watches.setdefault(series, EffectWatch(FLOORS[series.path]))
                verdict = watch.add(excess, n_scored) or verdict
        return verdict

    def _detector(self, record: KeyRecord, unit: Unit) -> Detector:
        place = (record.key_id, record.unit)
        known = self._detectors.get(place)
        if known is None or known.record is not record:
            known = self._detectors[place] = Detector(record, unit)
        return known


def _excess(detector: Detector, text: str, earlier: Sequence[str]) -> tuple[float, int]:
    """Return the excess of a reply, as `EffectWatch.add` takes it, and how many were scored.

    A result of the detector holds no figures of a short reply; these stay in this module.
    """
    reader = detector.reader
    positions = reader.positions(detector.ids(text))
    pairs = reader.read(positions, excluded=detector.excluded(earlier))
    if not len(pairs):
        return 0.0, 0
    law = reader.law(pairs)
    return (reader.statistic(pairs) - len(pairs) * law.score_mean) / law.score_sd, len(pairs)
