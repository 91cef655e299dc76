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
    text_forms,
)
from watermark.errors import WatermarkError
from watermark.keys import KeyRecord, KeyRing, SecretKey, load_keys
from watermark.schemes import Candidate, CopulaSampler, race
from watermark.text import TokenizerUnit, Unit, WordsUnit
from watermark.text.canonical import canonical
from watermark.version import __version__

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
    "load_keys",
    "race",
    "text_forms",
]
