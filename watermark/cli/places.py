"""Places of marks as the command line shows them: what was sought, found, and what levels mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from watermark.detection.localize import DEFAULT_ALPHA, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watermark.detection import DetectionResult, Localization, TextForm
    from watermark.keys import KeyRecord
    from watermark.text import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """One test whose place in the text is wanted.

    Attributes:
        name: What to call the text.
        form: The form of the text that gave the result.
        record: The key.
        unit: How the text is cut.
        result: What the whole text says.
    """

    name: str
    form: TextForm
    record: KeyRecord
    unit: Unit
    result: DetectionResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """One test with its place, or why there is none.

    Attributes:
        sought: The test.
        text: The characters that were tested.
        where: The place; None where it cannot be found.
        reason: Why it cannot be found.
    """

    sought: Sought
    text: str
    where: Localization | None
    reason: str = ""


def legend(marked: str, hinted: str) -> str:
    """Return the sentence that says what the levels mean.

    Args:
        marked: How marked spans look.
        hinted: How windows with a small p-value of their own look.
    """
    return (
        f"Marked spans ({marked}) are named at family-wise {DEFAULT_ALPHA:g} over all windows, "
        "keys, files and forms of this call; they begin and end with windows of 16 scored units. "
        f"Other windows ({hinted}) have a p of their own of at most 0.01, as one in a hundred has "
        "without a mark."
    )


def level_runs(where: Localization, length: int) -> Iterator[tuple[Level, tuple[int, int]]]:
    """Yield runs of windows of one level, as characters; together they are the whole text."""
    level, first = where.windows[0].level, 0
    for window in where.windows:
        if window.level is not level and window.characters is not None:
            yield level, (first, window.characters[0])
            level, first = window.level, window.characters[0]
    yield level, (first, length)


def span_fields(where: Localization) -> dict[str, object]:
    """Return the stable fields of a place."""
    return {
        "alpha": where.alpha,
        "n_tests": where.n_tests,
        "n_null": where.n_null,
        "null": where.null,
        "log10_pvalue_ceiling": where.log10_pvalue_ceiling,
        "spans": [{"units": one.units, "characters": one.characters} for one in where.spans],
        "levels": "".join(str(window.level.value) for window in where.windows),
    }
