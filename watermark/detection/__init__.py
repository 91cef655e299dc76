"""A text and a key to one exact p-value."""

from watermark.detection.detector import Detector
from watermark.detection.forms import TextForm, detect_forms, text_forms
from watermark.detection.localize import Level, Localization, Localizer
from watermark.detection.result import DetectionResult

__all__ = [
    "DetectionResult",
    "Detector",
    "Level",
    "Localization",
    "Localizer",
    "TextForm",
    "detect_forms",
    "text_forms",
]
