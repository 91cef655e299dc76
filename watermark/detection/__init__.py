"""A text and a key to one exact p-value."""

from watermark.detection.detector import Detector
from watermark.detection.result import DetectionResult

__all__ = ["DetectionResult", "Detector"]
