"""Text as it read before someone disguised it.

A mark sits in units, and whoever writes `а` (Cyrillic) for `a`, hides a zero-width space in every
word or wraps the text in other mark-up changes the units and not what a reader sees. `canonical`
takes such changes back; a detector tests both forms and pays for looking twice
(`watermark.detection.forms`).

Source: `watermark/spec/canonical.md`.
"""

from typing import Final

from watermark.text.canonical.normalizer import CANONICAL_VERSION, canonical, canonical_digest

RAW: Final = "raw"
"""The name of the form in which a text came."""
CANONICAL: Final = "canonical"
"""The name of the other one."""

__all__ = ["CANONICAL", "CANONICAL_VERSION", "RAW", "canonical", "canonical_digest"]
