"""`watermark detect`: hold keys against files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click
import msgspec

from watermark.cli import render
from watermark.cli.decoys import USUAL_WORK, WEIGHTED_WORK, decoy_count
from watermark.cli.desk import utc_now
from watermark.cli.detect_output import Body, Test, body_name, print_tests
from watermark.cli.options import (
    check_share,
    ids_option,
    key_id_option,
    keys_option,
    pooled_option,
    tokenizer_option,
)
from watermark.cli.places import Sought
from watermark.cli.reading import STANDARD_INPUT, read_file
from watermark.cli.weights import check_weighted, weigh_all
from watermark.cli.where import Views, check_views, locate, show, view_options
from watermark.detection import Document, detect_many, text_forms
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from watermark.keys import KeyRecord, KeyRing

DEFAULT_ALPHA: Final = 1e-6

_EPILOG: Final = """\
Examples:

\b
  watermark detect reply.txt --keys KEYS.toml
  watermark detect *.txt --keys KEYS.toml --key-id 2026-11 --json
  watermark detect reply.txt --keys KEYS.toml --tokenizer model/tokenizer.json
  watermark detect answers/*.txt --keys KEYS.toml --pooled --exit-code --alpha 1e-9
  watermark detect article.txt --keys KEYS.toml --highlight --html report.html
  watermark detect reply.txt --keys KEYS.toml --exclude prompt.txt --decoys auto --alpha 1e-4
  curl -s https://example.org/article.txt | watermark detect - --keys KEYS.toml
"""


@dataclass(frozen=True, slots=True)
class _Options:
    """What is done beside holding keys against texts.

    Attributes:
        exclude: Texts that the writer had in view.
        decoys: Decoy keys a test.
    """

    exclude: tuple[str | list[int], ...]
    decoys: int


@click.command(epilog=_EPILOG, short_help="Test files for the mark of a key.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@keys_option
@key_id_option
@tokenizer_option
@pooled_option
@ids_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each test.")
@click.option(
    "--alpha",
    type=float,
    default=DEFAULT_ALPHA,
    show_default=True,
    callback=check_share,
    help="Level for --exit-code and for --decoys auto; nothing else depends on it.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 3 when no test rejects its null.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PROMPTS",
    help="Text that the writer had in view: what follows its n-grams is not scored; may be "
    "repeated.",
)
@click.option(
    "--decoys",
    metavar="N|auto",
    help="Rank each test among N random keys too; auto is 3 / alpha. By default it is that, or "
    "what a quarter of a second allows; 0 for none.",
)
@click.option(
    "--weights-from",
    metavar="URL",
    help="For text of low entropy: weight scores by what the model of this server, with OpenAI's "
    "completions, expected; its tokens are the keys'.",
)
@view_options
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
    exclude: tuple[str, ...],
    decoys: str | None,
    weights_from: str | None,
    highlight: bool,
    html: Path | None,
    plot: Path | None,
) -> int:
    """Hold every key of KEYS.toml that has marked against every FILE (- for standard input).

    For each file and key, prints a p-value under the null that the text was produced without the
    key, exact or, where the key's scheme allows no better, from decoy keys with a floor, and its
    family-wise value (Holm) over all tests of this call. Text is tested as it is and in its
    canonical form, without disguise and mark-up, where that is another; the family-wise value
    counts both. Neither --exclude nor --decoys can make a p-value invalid: both depend on the
    text, never on a key. A file that cannot be tested is reported, and the others are tested.
    """
    check_usage(files, tokenizers, as_ids=as_ids)
    views = Views(highlight=highlight, html=html, plot=plot)
    check_views(views, pooled=pooled, as_ids=as_ids, has_excluded=bool(exclude))
    records = select_records(load_keys(keys_file), key_ids, keys_file)
    units = {} if as_ids else units_of(records, tokenizers)
    bodies, errors = read_all(files, as_ids=as_ids)
    if pooled and bodies:
        bodies = [pool(bodies)]
    work = USUAL_WORK if weights_from is None else WEIGHTED_WORK
    n_decoys = decoy_count(decoys, alpha, bodies, records, work=work)
    options = _Options(_read_excluded(exclude, as_ids=as_ids), n_decoys)
    if weights_from is None:
        tests, failed = _test_all(bodies, records, units, options)
    else:
        check_weighted(records, has_views=bool(views))
        tests, failed = weigh_all(
            weights_from,
            bodies,
            records,
            units,
            exclude=options.exclude,
            decoys=options.decoys,
        )
    located = locate([_sought(test, units) for test in tests], _n_looks(tests)) if views else []
    print_tests(tests, [one.where for one in located], as_json=as_json)
    show(located, views, as_json=as_json)
    errors += failed
    if errors:
        return render.write_errors(errors)
    is_rejected = any(test.result.rejects_null(alpha=alpha) for test in tests)
    return render.EXIT_NULL_STANDS if exit_code and not is_rejected else render.EXIT_DONE


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


def _read_excluded(files: Iterable[str], *, as_ids: bool) -> tuple[str | list[int], ...]:
    """Return the texts to exclude; one that cannot be read stops everything.

    Raises:
        InputError: A file cannot be read, or is not of the form that the others have.
    """
    if as_ids:
        return tuple(ids for file in files for ids in parse_ids(read_file(file), file))
    return tuple(parse_text(read_file(file), file) for file in files)


def _test_all(
    bodies: Sequence[Body],
    records: Sequence[KeyRecord],
    units: Mapping[str, Unit],
    options: _Options,
) -> tuple[list[Test], list[WatermarkError]]:
    """Hold every key against every body; the family is all tests that could be made."""
    documents = [Document(replies=body.texts or body.ids, name=body_name(body)) for body in bodies]
    family = detect_many(
        records, documents, units.values(), exclude=options.exclude, decoys=options.decoys
    )
    tests = [
        Test(bodies[document], result, records[key])
        for document, key, result in zip(family.documents, family.keys, family, strict=True)
    ]
    return tests, [type(err)(f"{family.names[i]}: {err}") for i, err in family.failures]


def _sought(test: Test, units: Mapping[str, Unit]) -> Sought:
    """Return what to look for: the key, in the form of the text that spoke for it most."""
    unit = units[test.record.unit]
    forms = text_forms(test.body.texts, unit)
    return Sought(
        name=body_name(test.body),
        form=next(form for form in forms if form.name == test.result.form),
        record=test.record,
        unit=unit,
        result=test.result,
    )


def _n_looks(tests: Sequence[Test]) -> int:
    """Return how many texts, forms and keys could have been looked at."""
    return sum(test.result.n_forms for test in tests)
