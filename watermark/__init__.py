"""Keyed statistical watermarks for text: seed, sample, detect.

Everything that marks or tests text lives here; nothing here opens a socket. The rooms, each
importing only from those before it::

    text, stats ┐
    keys        ├─> seeding ─> schemes ─> detection ─> radioactivity ─> suspects ─> cli
    wire        ┘                      └> engines

From a text to a p-value::

    from pathlib import Path
    from watermark import Detector, TokenizerUnit, load_keys

    record = load_keys(Path("KEYS.toml")).by_id("2026-11")[0]
    unit = TokenizerUnit.read(Path("tokenizer.json"), expected=record.unit)
    print(Detector(record, unit).detect("some text"))
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from watermark.errors import WatermarkError
from watermark.version import __version__

if TYPE_CHECKING:
    from watermark.corpora import scan
    from watermark.detection import (
        DetectionFamily,
        DetectionResult,
        DetectionStream,
        Detector,
        Document,
        Localization,
        Localizer,
        detect_forms,
        detect_many,
        detect_weighted,
        text_forms,
    )
    from watermark.keys import KeyRecord, KeyRing, SecretKey, load_keys
    from watermark.schemes import Candidate, CopulaSampler, race
    from watermark.text import TokenizerUnit, Unit, WordsUnit
    from watermark.text.canonical import canonical

__all__ = [
    "Candidate",
    "CopulaSampler",
    "DetectionFamily",
    "DetectionResult",
    "DetectionStream",
    "Detector",
    "Document",
    "KeyRecord",
    "KeyRing",
    "Localization",
    "Localizer",
    "SecretKey",
    "TokenizerUnit",
    "Unit",
    "WatermarkError",
    "WordsUnit",
    "__version__",
    "canonical",
    "detect_forms",
    "detect_many",
    "detect_weighted",
    "load_keys",
    "race",
    "scan",
    "text_forms",
]

# Where a name comes from. A room is imported when one of its names is first asked for: a command
# that rotates keys at three in the morning does not wait for the mathematics.
_ROOMS: Final = {
    "watermark.corpora": ("scan",),
    "watermark.detection": (
        "DetectionFamily", "DetectionResult", "DetectionStream", "Detector", "Document",
        "Localization", "Localizer", "detect_forms", "detect_many", "detect_weighted", "text_forms",
    ),
    "watermark.keys": ("KeyRecord", "KeyRing", "SecretKey", "load_keys"),
    "watermark.schemes": ("Candidate", "CopulaSampler", "race"),
    "watermark.text": ("TokenizerUnit", "Unit", "WordsUnit"),
    "watermark.text.canonical": ("canonical",),
}  # fmt: skip
_HOMES: Final = {name: room for room, names in _ROOMS.items() for name in names}

if not TYPE_CHECKING:  # what is misspelled is still an error to a type checker

    def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the room has
        """Return a public name from its room."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        """Return the public names."""
        return __all__
