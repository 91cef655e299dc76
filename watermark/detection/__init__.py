"""A text and a key to one exact p-value."""

from watermark.detection.detector import Detector
from watermark.detection.family import DetectionFamily
from watermark.detection.forms import TextForm, detect_forms, text_forms
from watermark.detection.key_scores import (
    KeySums,
    decoy_context_keys,
    key_score_blocks,
    key_statistics,
    key_sums,
)
from watermark.detection.localize import Level, Localization, Localizer
from watermark.detection.many import Document, detect_many
from watermark.detection.oracle import CoarseAnswer, Oracle, Verdict
from watermark.detection.result import DecoyRank, DetectionResult
from watermark.detection.stream import DetectionStream, StreamResult
from watermark.detection.weighted import detect_weighted
from watermark.detection.windows import Nulls

__all__ = [
    "CoarseAnswer",
    "DecoyRank",
    "DetectionFamily",
    "DetectionResult",
    "DetectionStream",
    "Detector",
    "Document",
    "KeySums",
    "Level",
    "Localization",
    "Localizer",
    "Nulls",
    "Oracle",
    "StreamResult",
    "TextForm",
    "Verdict",
    "decoy_context_keys",
    "detect_forms",
    "detect_many",
    "detect_weighted",
    "key_score_blocks",
    "key_statistics",
    "key_sums",
    "text_forms",
]
