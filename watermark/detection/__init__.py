"""A text and a key to one exact p-value."""

from watermark.detection.detector import Detector
from watermark.detection.positions import first_occurrences
from watermark.detection.result import DetectionResult

__all__ = ["DetectionResult", "Detector", "first_occurrences"]
