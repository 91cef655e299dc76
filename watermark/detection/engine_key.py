"""One key of an engine's scheme in a family of many, through the scheme's own reader.

Where the scheme's law is exact, decoys are keys drawn as the engine draws its own; where its
p-value comes from its key space already, there is nothing to add.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from watermark.detection.detector import Detector
from watermark.detection.forms import detect_forms
from watermark.detection.result import DecoyRank
from watermark.schemes import NO_CONTEXTS, join
from watermark.stats import decoys_reached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from watermark.detection.forms import TextForm
    from watermark.detection.result import DetectionResult
    from watermark.keys import KeyRecord
    from watermark.schemes import Reader

_EXACT: Final = frozenset({"gamma", "hypoexponential"})
_MAX_WORK: Final = 10**9  # pairs times decoys: an engine's function costs a hundred times ours
_DECOY_LABEL: Final = b"output-watermark/v1/decoys/engine/"


@dataclass(frozen=True, slots=True)
class EngineKey:
    """One record of an engine's scheme.

    Attributes:
        indices: Where it stands among all records of the call.
    """

    indices: tuple[int]
    _detector: Detector

    @classmethod
    def of(cls, record: KeyRecord, index: int) -> EngineKey:
        """Derive what the scheme needs.

        Raises:
            KeysError: The record's secret cannot give it.
        """
        return cls((index,), Detector(record))

    @property
    def unit(self) -> str:
        """The key's unit."""
        return self._detector.record.unit

    def detect(
        self,
        forms: Sequence[TextForm],
        exclude: Sequence[NDArray[np.uint32]] = (),
        *,
        decoys: int = 0,
    ) -> list[DetectionResult]:
        """Hold the key against one body of evidence; arguments as `KeyGroup.detect` has them.

        Raises:
            TextTooShortError: No form has a position with a whole context before it.
        """
        result = detect_forms(self._detector, forms, exclude=exclude)
        n_decoys = min(decoys, _MAX_WORK // max(1, result.n_scored * len(forms)))
        if not n_decoys or result.law.name not in _EXACT:
            return [result]
        rng = _decoy_generator(forms)
        reader = self._detector.reader
        strengths = np.array(
            [_strength(reader.decoy(rng), forms, exclude) for _ in range(n_decoys)]
        )
        (reached,) = decoys_reached(np.array([-result.log_pvalue]), strengths)
        return [replace(result, decoys=DecoyRank.of(n_decoys, int(reached)))]


def _strength(
    reader: Reader, forms: Sequence[TextForm], exclude: Sequence[NDArray[np.uint32]]
) -> float:
    """Return minus the log p-value of the best form."""
    found = [reader.contexts(ids) for ids in exclude if len(ids)]
    excluded = np.concatenate(found) if found else NO_CONTEXTS
    strengths = []
    for form in forms:
        read = [reader.read(reader.positions(ids), excluded=excluded) for ids in form.ids]
        if read:
            pairs = join(read)
            strengths.append(-reader.log_pvalue(reader.statistic(pairs), pairs))
    return max(strengths)


def _decoy_generator(forms: Sequence[TextForm]) -> np.random.Generator:
    """Return the generator of decoy keys that belongs to a text."""
    digest = hashlib.shake_256(_DECOY_LABEL)
    for form in forms:
        for ids in form.ids:
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(ids, "<u4").tobytes())
    return np.random.Generator(np.random.PCG64DXSM(int.from_bytes(digest.digest(32), "little")))
