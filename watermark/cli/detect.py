"""`watermark detect`: hold keys against files."""

from __future__ import annotations

import errno
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

import click
import msgspec

from watermark.cli import render
from watermark.cli.desk import utc_now
from watermark.detection import DetectionResult, Detector, TextForm, detect_forms, text_forms
from watermark.detection.detector import correct_family
from watermark.detection.result import LN_10
from watermark.errors import (
    InputError,
    KeysConfigError,
    TextEncodingError,
    TextTooShortError,
    TokenIdError,
    UnitMismatchError,
    WatermarkError,
)
from watermark.keys import load_keys
from watermark.text import WORDS_V1, TokenizerUnit, Unit, WordsUnit
from watermark.text.canonical import CANONICAL_VERSION, canonical_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from watermark.keys import KeyRecord, KeyRing

STANDARD_INPUT: Final = "-"
DEFAULT_ALPHA: Final = 1e-6
_SHOWN_UNIT: Final = len("tokenizer:sha256:") + 8  # enough to tell tokenizers apart

_EPILOG: Final = """\
Examples:

\b
  watermark detect reply.txt --keys KEYS.toml
  watermark detect *.txt --keys KEYS.toml --key-id 2026-11 --json
  watermark detect reply.txt --keys KEYS.toml --tokenizer model/tokenizer.json
  watermark detect answers/*.txt --keys KEYS.toml --pooled --exit-code --alpha 1e-9
  curl -s https://example.org/article.txt | watermark detect - --keys KEYS.toml
"""


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
class _Test:
    """One key held against one body."""

    body: Body
    result: DetectionResult


def check_alpha(_ctx: click.Context, _param: click.Parameter, alpha: float) -> float:
    """Return a level that lies between 0 and 1."""
    if not 0.0 < alpha < 1.0:  # refuses NaN too
        raise click.BadParameter(f"{alpha} is not between 0 and 1")
    return alpha


@click.command(epilog=_EPILOG, short_help="Test files for the mark of a key.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--keys",
    "keys_file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="KEYS.toml",
    help="The file that names the keys.",
)
@click.option("--key-id", "key_ids", multiple=True, help="Test this key only; may be repeated.")
@click.option(
    "--tokenizer",
    "tokenizers",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The tokenizer.json of a key's unit, found by its digest; may be repeated.",
)
@click.option("--pooled", is_flag=True, help="All files are one body of evidence, a reply each.")
@click.option(
    "--ids",
    "as_ids",
    is_flag=True,
    help="Files hold unit ids, not text: a JSON array, or one a line, each a reply.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each test.")
@click.option(
    "--alpha",
    type=float,
    default=DEFAULT_ALPHA,
    show_default=True,
    callback=check_alpha,
    help="Level for --exit-code; nothing else depends on it.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 when no test rejects its null.")
def detect(
    *,
    files: tuple[str, ...],
    keys_file: Path,
    key_ids: tuple[str, ...],
    tokenizers: tuple[Path, ...],
    pooled: bool,
    as_ids: bool,
    as_json: bool,
    alpha: float,
    exit_code: bool,
) -> int:
    """Hold every key of KEYS.toml that has marked against every FILE (- for standard input).

    For each file and key, prints a p-value under the null that the text was produced without the
    key, exact or, where the key's scheme allows no better, from decoy keys with a floor, and its
    family-wise value (Holm) over all tests of this call. Text is tested as it is and in its
    canonical form, without disguise and mark-up, where that is another; the family-wise value
    counts both. A file that cannot be tested is reported, and the others are tested.
    """
    check_usage(files, tokenizers, as_ids=as_ids)
    records = select_records(load_keys(keys_file), key_ids, keys_file)
    units = {} if as_ids else units_of(records, tokenizers)
    bodies, errors = read_all(files, as_ids=as_ids)
    if pooled and bodies:
        bodies = [pool(bodies)]
    tests, failed = _test_all(bodies, [Detector(record) for record in records], units)
    _print(tests, as_json=as_json)
    errors += failed
    if errors:
        return render.write_errors(errors)
    is_rejected = any(test.result.rejects_null(alpha=alpha) for test in tests)
    return render.EXIT_NULL_STANDS if exit_code and not is_rejected else render.EXIT_DONE


def read_file(file: str) -> bytes:
    """Return the bytes of a file, or of standard input for `-`.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        if file == STANDARD_INPUT:
            return _standard_input().read()
        return Path(file).read_bytes()
    except (OSError, ValueError) as err:
        reason = (isinstance(err, OSError) and err.strerror) or str(err)
        raise InputError(f"{file}: {reason.lower()}; correct the path") from err


def _standard_input() -> BinaryIO:
    """Return standard input, which is None in a process that was started without one."""
    stream: TextIO | None = getattr(sys, "stdin", None)
    if stream is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return stream.buffer


def select_records(ring: KeyRing, key_ids: Sequence[str], keys_file: Path) -> tuple[KeyRecord, ...]:
    """Return the records of the named keys, or all that have marked, in the order of the file.

    Raises:
        KeysConfigError: A key is not in the ring.
    """
    if not key_ids:
        return ring.detecting(utc_now()) or ring.records
    known = tuple(dict.fromkeys(record.key_id for record in ring))
    for key_id in key_ids:
        if key_id not in known:
            names = ", ".join(ascii(name) for name in known)
            raise KeysConfigError(
                f"{keys_file} holds no key {key_id!a}; correct --key-id, it holds {names}"
            )
    return tuple(record for record in ring if record.key_id in key_ids)


def units_of(records: Iterable[KeyRecord], tokenizers: Iterable[Path]) -> dict[str, Unit]:
    """Return the unit of every record, tokenizers found by their digest.

    Raises:
        TokenizerFileError: A tokenizer cannot be loaded.
        UnitMismatchError: No tokenizer has the digest that a key asks for.
    """
    loaded = {unit.unit_id: unit for unit in map(TokenizerUnit.read, tokenizers)}
    units: dict[str, Unit] = {WORDS_V1: WordsUnit(), **loaded}
    for record in records:
        if record.unit not in units:
            given = ", ".join(loaded) or "none"
            raise UnitMismatchError(
                f"key {record.key_id!a} needs --tokenizer with the file of {record.unit}, the one "
                f"that the marking proxy used, byte for byte; given: {given}"
            )
    return {record.unit: units[record.unit] for record in records}


def pool(bodies: Sequence[Body]) -> Body:
    """Return all replies as one body."""
    return Body(
        tuple(file for body in bodies for file in body.files),
        tuple(text for body in bodies for text in body.texts),
        tuple(ids for body in bodies for ids in body.ids),
    )


def parse_text(data: bytes, file: str) -> str:
    """Return the characters of a file.

    Raises:
        TextTooShortError: The file is empty.
        TextEncodingError: The file is not UTF-8.
    """
    if not data:
        raise TextTooShortError(f"{file}: the file is empty; give one that holds text")
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        # The cause holds the text: it is dropped, not chained.
        at = err.start
    raise TextEncodingError(f"{file}: not UTF-8 at byte {at}; convert the file to UTF-8")


def parse_ids(data: bytes, file: str) -> tuple[list[int], ...]:
    """Return the replies of a file of unit ids: one JSON array, or one a line.

    Raises:
        TextTooShortError: The file is empty.
        TokenIdError: The file has another form.
    """
    if not data.strip():
        raise TextTooShortError(f"{file}: the file is empty; give one that holds unit ids")
    try:
        return (msgspec.json.decode(data, type=list[int]),)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return tuple(
            _parse_line(line, f"{file}:{number}")
            for number, line in enumerate(data.split(b"\n"), start=1)
            if line.strip()
        )


def _parse_line(line: bytes, where: str) -> list[int]:
    """Return one reply."""
    try:
        return msgspec.json.decode(line, type=list[int])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TokenIdError(
            f"{where}: not a JSON array of integers; write one array, or one a line, or leave out "
            "--ids where the file holds text"
        ) from None


def check_usage(files: Sequence[str], tokenizers: Sequence[Path], *, as_ids: bool) -> None:
    """Refuse arguments that contradict each other."""
    if files.count(STANDARD_INPUT) > 1:
        raise click.UsageError("standard input can be read once; give - once")
    if as_ids and tokenizers:
        raise click.UsageError("--ids needs no --tokenizer; leave one of them out")


def read_all(files: Iterable[str], *, as_ids: bool) -> tuple[list[Body], list[WatermarkError]]:
    """Return what could be read, and what could not."""
    bodies: list[Body] = []
    errors: list[WatermarkError] = []
    for file in files:
        try:
            data = read_file(file)
            if as_ids:
                bodies.append(Body((file,), ids=parse_ids(data, file)))
            else:
                bodies.append(Body((file,), texts=(parse_text(data, file),)))
        except InputError as err:
            errors.append(err)
    return bodies, errors


def _test_all(
    bodies: Iterable[Body], detectors: Sequence[Detector], units: Mapping[str, Unit]
) -> tuple[list[_Test], list[WatermarkError]]:
    """Hold every detector against every body; the family is all tests that could be made."""
    tests: list[_Test] = []
    errors: list[WatermarkError] = []
    for body in bodies:
        forms = {name: text_forms(body.texts, unit) for name, unit in units.items()}
        for detector in detectors:
            try:
                tests.append(_Test(body, _test(detector, body, forms)))
            except InputError as err:
                errors.append(type(err)(f"{body_name(body)}: {err}"))
    corrected = correct_family([test.result for test in tests])
    return [_Test(test.body, result) for test, result in zip(tests, corrected, strict=True)], errors


def _test(
    detector: Detector, body: Body, forms: Mapping[str, Sequence[TextForm]]
) -> DetectionResult:
    """Hold one key against one body: text in all its forms, unit ids as they are."""
    if body.ids:
        return detector.detect_pooled(body.ids)
    return detect_forms(detector, forms[detector.record.unit])


def body_name(body: Body) -> str:
    """Return what to call a body in one word or two."""
    return body.files[0] if len(body.files) == 1 else f"{len(body.files)} files"


def _print(tests: Sequence[_Test], *, as_json: bool) -> None:
    """Print the tests for a program or for a person."""
    if as_json:
        render.write_objects(_fields(test) for test in tests)
    elif tests:
        render.write_table([_row(test) for test in tests], _summary(tests))


def _fields(test: _Test) -> dict[str, object]:
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


def _row(test: _Test) -> render.Row:
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


def _summary(tests: Sequence[_Test]) -> str:
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


def _floors(tests: Sequence[_Test]) -> str:
    """Return a sentence about p-values that cannot be smaller, however marked a text is."""
    laws = [test.result.law for test in tests if test.result.law.name == "decoys"]
    if not laws:
        return ""
    lowest = max(law.log_pvalue_floor for law in laws) / LN_10
    return (
        f" Where p comes from decoy keys it cannot be smaller than 10^{lowest:z.2f}, however "
        "marked the text."
    )
