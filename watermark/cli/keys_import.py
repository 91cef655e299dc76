"""`watermark keys import`: take over the key of an engine's own mark, to detect it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from watermark.cli import render
from watermark.cli.keys import file_stem, say_what_was_done, unit_id
from watermark.cli.reading import read_file
from watermark.errors import KeyFileError, KeysConfigError
from watermark.keys import FOREIGN_SCHEMES, ForeignKey, KeyState, format_record, write_key_file
from watermark.keys.foreign import MAX_FOREIGN_INTEGERS, Scalar

_HEX_SCHEME: Final = "sglang-gumbel"  # whose keys are hexadecimal wherever they are written
_MAX_DIGITS: Final = 20  # of 2^64 in decimal

_EPILOG: Final = """\
Examples:

\b
  watermark keys import engine-key.txt --scheme vllm-gumbel --id vllm-2026 --dir keys \
    --tokenizer model/tokenizer.json
  watermark keys import - --scheme hf-green-list --id hf-2026 --dir keys \
    --tokenizer model/tokenizer.json --parameter vocab_size=32000 < engine-key.txt
"""


@click.command("import", epilog=_EPILOG)
@click.argument("file", metavar="FILE")
@click.option("--scheme", required=True, type=click.Choice(tuple(FOREIGN_SCHEMES)))
@click.option("--id", "key_id", required=True, help="Name of the key, for example vllm-2026.")
@click.option(
    "--dir",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Existing folder for the key file; nothing in it is overwritten.",
)
@click.option("--unit", help="What a token is: `tokenizer:sha256:` and a digest.")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="The model's tokenizer.json: a token is one of its ids.",
)
@click.option("--context-width", type=int, help="Tokens before the one marked.  [the engine's]")
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="What else the engine was configured with, by its own name; may be repeated.",
)
def import_key(
    *,
    file: str,
    scheme: str,
    key_id: str,
    folder: Path,
    unit: str | None,
    tokenizer: Path | None,
    context_width: int | None,
    parameters: tuple[str, ...],
) -> int:
    """Take over an engine's key from FILE (- for standard input) and print its record.

    FILE holds the engine's secret integers, as the engine's configuration spells them: decimal,
    or hexadecimal with 0x; for SGLang hexadecimal without. The key is written to DIR/ID.key; it
    detects the engine's mark, and never marks here.
    """
    if unit is None and tokenizer is None:
        raise click.UsageError("an engine marks token ids; give --tokenizer, or --unit")
    path = folder.absolute() / (file_stem(key_id) + ".key")
    record = format_record(
        key_id=key_id,
        unit=unit_id(unit, tokenizer),
        secret=str(path),
        scheme=scheme,
        context_width=context_width or FOREIGN_SCHEMES[scheme].context_width,
        state=KeyState.DETECT,
        parameters=tuple(sorted(_parameter(scheme, text) for text in parameters)),
    )
    write_key_file(path, ForeignKey(key_id, _integers(read_file(file), scheme, file)))
    render.write_data(record)
    say_what_was_done(path)
    return render.EXIT_DONE


def _parameter(scheme: str, text: str) -> tuple[str, Scalar]:
    """Return a parameter of a scheme, in its own type.

    Raises:
        KeysConfigError: It is none, or malformed.
    """
    name, _, value = text.partition("=")
    known = FOREIGN_SCHEMES[scheme].parameters
    if name not in known:
        names = ", ".join(known) or "none"
        raise KeysConfigError(f"scheme {scheme!a} has no parameter {name!a}; it has {names}")
    try:
        return name, known[name].kind(value)
    except ValueError:
        raise KeysConfigError(
            f"parameter {name} = {value!a} is not of type {known[name].kind.__name__}; correct it"
        ) from None


def _integers(data: bytes, scheme: str, file: str) -> list[int]:
    """Return the integers in a file, which is never quoted.

    Raises:
        KeyFileError: They are too few, too many, or malformed.
    """
    words = data.decode("ascii", "replace").replace(",", " ").split()
    least, most = FOREIGN_SCHEMES[scheme].integers
    if not least <= len(words) <= min(most, MAX_FOREIGN_INTEGERS):
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise KeyFileError(
            f"{file} holds {len(words)} integers; scheme {scheme!a} takes {wanted}, apart by "
            "spaces, commas or lines"
        )
    try:
        numbers = [_integer(word, scheme) for word in words]
    except ValueError:
        raise KeyFileError(
            f"{file} holds something that is no integer of 64 bits; write the engine's key as its "
            "configuration spells it"
        ) from None
    return numbers


def _integer(word: str, scheme: str) -> int:
    """Return one integer.

    Raises:
        ValueError: It is none, or longer than 64 bits.
    """
    is_hex = scheme == _HEX_SCHEME or word.lower().startswith("0x")
    if len(word) > _MAX_DIGITS or not word.isalnum():
        raise ValueError
    number = int(word, 16 if is_hex else 10)
    if number >= 2**64:
        raise ValueError
    return number
