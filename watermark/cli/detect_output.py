"""What `watermark detect` prints of its tests: a table for people, objects for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.cli import render
from watermark.cli.places import span_fields
from watermark.stats import LN_10
from watermark.text import WORDS_V1, WordsUnit
from watermark.text.canonical import CANONICAL_VERSION, canonical_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watermark.detection import DecoyRank, DetectionResult, Localization
    from watermark.keys import KeyRecord

_MAX_ROWS: Final = 200  # what a person may look through; --json has all
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
    record: KeyRecord


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
        strongest = sorted(tests, key=lambda test: test.result.log_pvalue)[:_MAX_ROWS]
        kept = {id(test) for test in strongest}
        shown = [test for test in tests if id(test) in kept]
        columns = [column for column in _COLUMNS if any(column.cell(test.result) for test in shown)]
        lines = [
            (body_name(test.body), _key(test), *(column.cell(test.result) for column in columns))
            for test in shown
        ]
        heads = [column.head for column in columns]
        render.write_lines(("file", "key"), heads, lines, _summary(tests))


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
        "n_excluded": result.n_excluded,
        "statistic": None if math.isnan(result.statistic) else result.statistic,
        "log_pvalue": result.log_pvalue,
        "log10_pvalue": result.log10_pvalue,
        "log_pvalue_family": result.log_pvalue_family,
        "log10_pvalue_family": result.log10_pvalue_family,
        "law": result.law.name,
    }
    if math.isfinite(result.law.log_pvalue_floor):
        fields["log10_pvalue_floor"] = result.law.log_pvalue_floor / LN_10
    if result.decoys is not None:
        fields["decoys"] = _decoy_fields(result.decoys)
    if not test.body.ids:
        fields["form"] = result.form
        fields["n_forms"] = result.n_forms
        fields["canonical"] = f"{CANONICAL_VERSION} {canonical_digest()}"
    if len(files) > 1:
        fields["files"] = list(files)
    if result.unit == WORDS_V1:
        fields["unicode_version"] = WordsUnit.unicode_version
    return fields


def _decoy_fields(decoys: DecoyRank) -> dict[str, object]:
    """Return the stable fields of a rank among decoy keys."""
    return {
        "n_decoys": decoys.n_decoys,
        "n_reached": decoys.n_reached,
        "log10_pvalue": decoys.log_pvalue / LN_10,
        "log10_pvalue_family": decoys.log_pvalue_family / LN_10,
        "log10_pvalue_floor": decoys.log_pvalue_floor / LN_10,
    }


def _key(test: Test) -> str:
    """Return what to call a key: its id, and its unit where that is a tokenizer."""
    result = test.result
    return result.key_id + ("" if result.unit == WORDS_V1 else f" ({result.unit[:_SHOWN_UNIT]})")


@dataclass(frozen=True, slots=True)
class _Column:
    """One number of a test; a column that is empty throughout is left out."""

    head: str
    cell: Callable[[DetectionResult], str]


def _log10(log_pvalue: float) -> str:
    return f"{log_pvalue / LN_10:z.2f}"


_COLUMNS: Final = (
    _Column("units", lambda result: str(result.n_tokens)),
    _Column("scored", lambda result: str(result.n_scored)),
    _Column("excluded", lambda result: str(result.n_excluded or "")),
    _Column("log10 p", lambda result: _log10(result.log_pvalue)),
    _Column("log10 p family-wise", lambda result: _log10(result.log_pvalue_family)),
    _Column(
        "log10 p by decoys",
        lambda result: "" if result.decoys is None else _log10(result.decoys.log_pvalue),
    ),
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
        f"{_floors(tests)}{_decoys(tests)}{_left_out(len(tests))}"
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


def _decoys(tests: Sequence[Test]) -> str:
    """Return what ranks among decoy keys can say, and where they contradict the closed form."""
    ranked = [(test, test.result.decoys) for test in tests if test.result.decoys is not None]
    if not ranked:
        return ""
    floor = max(decoys.log_pvalue_floor for _, decoys in ranked) / LN_10
    smallest = min(decoys.log_pvalue_family for _, decoys in ranked) / LN_10
    wrong = [test for test, decoys in ranked if decoys.contradicts(test.result.log_pvalue)]
    said = (
        f" By rank among decoy keys, which need no formula, the smallest p family-wise is "
        f"10^{smallest:z.2f}; no rank can fall below 10^{floor:z.2f}."
    )
    if not wrong:
        return said
    names = ", ".join(f"{body_name(test.body)} under {_key(test)}" for test in wrong)
    return f"{said} RANK AND FORMULA CONTRADICT EACH OTHER for {names}: use neither, report it."


def _left_out(n_tests: int) -> str:
    """Return how many tests the table leaves out."""
    if n_tests <= _MAX_ROWS:
        return ""
    return f" The table holds the {_MAX_ROWS} smallest p of {n_tests}; --json prints all."
