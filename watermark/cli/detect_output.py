"""What `watermark detect` prints of its tests: a table for people, objects for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.cli import render
from watermark.cli.places import span_fields
from watermark.detection.result import LN_10
from watermark.text import WORDS_V1, WordsUnit
from watermark.text.canonical import CANONICAL_VERSION, canonical_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.detection import DetectionResult, Detector, Localization, TextForm

_SHOWN_UNIT: Final = len("tokenizer:sha256:") + 8  # enough to tell tokenizers apart


@dataclass(frozen=True, slots=True)
class Body:
    """What is tested as one: the replies of one file, or of all files.

    Attributes:
        files: Where the replies come from.
        texts: Replies in characters.
        ids: Replies in unit ids.
    """

    files: tuple[str, ...]
    texts: tuple[str, ...] = ()
    ids: tuple[list[int], ...] = ()


@dataclass(frozen=True, slots=True)
class Test:
    """One key held against one body."""

    body: Body
    result: DetectionResult
    detector: Detector
    forms: tuple[TextForm, ...] = ()


def body_name(body: Body) -> str:
    """Return what to call a body in one word or two."""
    return body.files[0] if len(body.files) == 1 else f"{len(body.files)} files"


def print_tests(
    tests: Sequence[Test], places: Sequence[Localization | None], *, as_json: bool
) -> None:
    """Print the tests for a program or for a person; a program gets their places too."""
    if as_json:
        objects = [_fields(test) for test in tests]
        for fields, where in zip(objects, places, strict=False):
            fields["localization"] = None if where is None else span_fields(where)
        render.write_objects(objects)
    elif tests:
        render.write_table([_row(test) for test in tests], _summary(tests))


def _fields(test: Test) -> dict[str, object]:
    """Return the stable fields of one test."""
    result, files = test.result, test.body.files
    fields: dict[str, object] = {
        "file": files[0] if len(files) == 1 else None,
        "key_id": result.key_id,
        "unit": result.unit,
        "scheme": result.scheme,
        "context_width": result.context_width,
        "n_tokens": result.n_tokens,
        "n_scored": result.n_scored,
        "n_repeated": result.n_repeated,
        "statistic": result.statistic,
        "log_pvalue": result.log_pvalue,
        "log10_pvalue": result.log10_pvalue,
        "log_pvalue_family": result.log_pvalue_family,
        "log10_pvalue_family": result.log10_pvalue_family,
        "law": result.law.name,
    }
    if math.isfinite(result.law.log_pvalue_floor):
        fields["log10_pvalue_floor"] = result.law.log_pvalue_floor / LN_10
    if not test.body.ids:
        fields["form"] = result.form
        fields["n_forms"] = result.n_forms
        fields["canonical"] = f"{CANONICAL_VERSION} {canonical_digest()}"
    if len(files) > 1:
        fields["files"] = list(files)
    if result.unit == WORDS_V1:
        fields["unicode_version"] = WordsUnit.unicode_version
    return fields


def _row(test: Test) -> render.Row:
    """Return one line of the table."""
    result = test.result
    unit = "" if result.unit == WORDS_V1 else f" ({result.unit[:_SHOWN_UNIT]})"
    return render.Row(
        file=body_name(test.body),
        key=result.key_id + unit,
        n_tokens=result.n_tokens,
        n_scored=result.n_scored,
        log10_pvalue=result.log10_pvalue,
        log10_pvalue_family=result.log10_pvalue_family,
    )


def _summary(tests: Sequence[Test]) -> str:
    """Return the sentence that says what the numbers are, and what they are not."""
    smallest = min(test.result.log10_pvalue_family for test in tests)
    count = "the one test" if len(tests) == 1 else f"all {len(tests)} tests"
    version = f" (words/v1 by Unicode {WordsUnit.unicode_version})"
    has_words = any(test.result.unit == WORDS_V1 for test in tests)
    return (
        "Null hypothesis of each test: the text was produced without this key. Over "
        f"{count} of this call the smallest p family-wise is 10^{smallest:z.2f}; a small p "
        f"speaks against the null, and says nothing about who wrote the text{version * has_words}."
        f"{_floors(tests)}"
    )


def _floors(tests: Sequence[Test]) -> str:
    """Return a sentence about p-values that cannot be smaller, however marked a text is."""
    laws = [test.result.law for test in tests if test.result.law.name == "decoys"]
    if not laws:
        return ""
    lowest = max(law.log_pvalue_floor for law in laws) / LN_10
    return (
        f" Where p comes from decoy keys it cannot be smaller than 10^{lowest:z.2f}, however "
        "marked the text."
    )
