"""One text in several forms: as it came, and canonical.

Rule 1: the forms are fixed by the text alone, before any score is computed; forms that are cut
into the same units are one test.
Rule 2: the smallest of k p-values counts k times (Bonferroni), here and nowhere else.

Why the p-value stays valid: under the null the key is independent of the text, so also of its
forms and of their number k. Each form's p is valid given the text, hence P(k min p <= a) <= a for
every text. A text that is its own canonical form pays nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from watermark.text.canonical import CANONICAL, RAW, canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from watermark.detection.detector import Detector
    from watermark.detection.result import DetectionResult
    from watermark.text import Unit

    Replies = Sequence[NDArray[np.uint32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextForm:
    """The replies of one body of evidence, in one form.

    Attributes:
        name: `raw` or `canonical`.
        texts: The characters of each reply.
        ids: The units of each reply.
    """

    name: str
    texts: tuple[str, ...]
    ids: tuple[NDArray[np.uint32], ...]


def text_forms(texts: Sequence[str], unit: Unit) -> list[TextForm]:
    """Return the forms of a body of evidence that differ in their units, the raw one first.

    Args:
        texts: Replies that are tested together.
        unit: How they are cut.

    Raises:
        TextEncodingError: A text holds half a surrogate pair.
    """
    raw = TextForm(name=RAW, texts=tuple(texts), ids=tuple(map(unit.encode, texts)))
    forms = tuple(map(canonical, texts))
    ids = tuple(
        before if form == text else unit.encode(form)
        for form, text, before in zip(forms, texts, raw.ids, strict=True)
    )
    if all(map(np.array_equal, ids, raw.ids)):
        return [raw]
    return [raw, TextForm(name=CANONICAL, texts=forms, ids=ids)]


def detect_forms(
    detector: Detector, forms: Sequence[TextForm], *, exclude: Replies = ()
) -> DetectionResult:
    """Test one body of evidence in all its forms and return the result of the best one.

    Args:
        detector: One key.
        forms: As `text_forms` gives them.
        exclude: Units of texts that the writer had in view; see `Detector.detect`.

    Returns:
        The result with the smallest p-value; `form` names it, and `log_pvalue_family` holds the
        correction for having looked at `n_forms`.

    Raises:
        TextTooShortError: No form has a position with a whole context before it.
    """
    testable = [form for form in forms if _is_testable(detector, form)] or list(forms[:1])
    results = [
        replace(detector.detect_pooled(form.ids, exclude=exclude), form=form.name)
        for form in testable
    ]
    best = min(results, key=lambda result: result.log_pvalue)
    family = min(0.0, best.log_pvalue + math.log(len(forms)))
    return replace(best, n_forms=len(forms), log_pvalue_family=family)


def _is_testable(detector: Detector, form: TextForm) -> bool:
    """Return whether a form has a place to score; mark-up alone may leave nothing."""
    return any(len(ids) > detector.record.context_width for ids in form.ids)
