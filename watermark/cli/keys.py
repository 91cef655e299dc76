"""`watermark keys`, and `watermark keys new`: make a key.

The 32 secret bytes are drawn here, at the edge, and go into the key file and nowhere else.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import click

from watermark.cli import render
from watermark.cli.desk import Desk, Time
from watermark.errors import CommitmentError, KeyFileError
from watermark.keys import (
    DEFAULT_SCOPE,
    SECRET_BYTES,
    STATIC_GREEN_LIST,
    SecretKey,
    format_record,
    parse_key_file,
    write_key_file,
)
from watermark.keys.commitment import beacon_entry, beacon_secret
from watermark.keys.keyfile import MAX_KEY_FILE_BYTES, read_private_file
from watermark.keys.record import (
    DEFAULT_ACCOUNT_SHARE_Q16,
    DEFAULT_CONTEXT_WIDTH,
    DEFAULT_RHO,
    DEFAULT_SCHEME,
    SGLANG_NATIVE,
)
from watermark.text import WORDS_V1, TokenizerUnit

if TYPE_CHECKING:
    from datetime import datetime

_SUFFIX: Final = ".key"
_MAX_STEM: Final = 200  # with suffixes below the 255 bytes that file systems allow
_OTHERS: Final = 0o007

_NEW_EPILOG: Final = """\
Examples:

\b
  mkdir -m 700 keys
  watermark keys new --id 2026-11 --dir keys
  watermark keys new --id 2026-11 --dir keys --tokenizer model/tokenizer.json
  watermark keys new --id 2027-01 --dir keys --not-before 2027-01-01T00:00:00Z \
    --beacon round-12.bin --operator-secret op.key --keys keys/KEYS.toml
"""


@click.group()
def keys() -> None:
    """Make, rotate, retire and prove keys."""


@keys.command("new", epilog=_NEW_EPILOG)
@click.option("--id", "key_id", required=True, help="Name of the key, for example 2026-11.")
@click.option(
    "--dir",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Existing folder for the key file; nothing in it is overwritten.",
)
@click.option("--unit", help=f"What a token is.  [default: {WORDS_V1}]")
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="The model's tokenizer.json: a token is one of its ids.",
)
@click.option(
    "--context-width",
    type=int,
    default=DEFAULT_CONTEXT_WIDTH,
    show_default=True,
    help="Tokens that seed the next one, 1 to 4.",
)
@click.option(
    "--rho",
    type=float,
    default=DEFAULT_RHO,
    show_default=True,
    help="Strength, 0 (no mark) to 1 (least varied wording).",
)
@click.option(
    "--account-share-q16",
    type=int,
    default=DEFAULT_ACCOUNT_SHARE_Q16,
    show_default=True,
    help="Share of the positions, in 65536ths, that carry the account.",
)
@click.option(
    "--scheme",
    type=click.Choice((DEFAULT_SCHEME, SGLANG_NATIVE, STATIC_GREEN_LIST)),
    default=DEFAULT_SCHEME,
    show_default=True,
    help="How it marks; sglang-native: SGLang does, with a subkey that the proxy sends; "
    "static-green-list: the upstream does, by biases, which changes replies and is no evidence.",
)
@click.option("--scope", default=DEFAULT_SCOPE, show_default=True, help="What it marks.")
@click.option("--not-before", type=Time(), help="It marks from this instant on.")
@click.option("--not-after", type=Time(), help="It marks before this instant.")
@click.option(
    "--beacon",
    type=click.Path(path_type=Path),
    help="Make the secret of a committed operator secret and the bytes of this file.",
)
@click.option(
    "--operator-secret",
    type=click.Path(path_type=Path),
    help="With --beacon: the key file whose share was committed to.",
)
@click.option(
    "--beacon-name", help="With --beacon: the name that was committed to.  [default: the file's]"
)
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path),
    metavar="KEYS.toml",
    help="With --beacon: the file whose log holds that commitment.",
)
def new(
    *,
    key_id: str,
    folder: Path,
    unit: str | None,
    tokenizer: Path | None,
    context_width: int,
    rho: float,
    account_share_q16: int,
    scheme: str,
    scope: str,
    not_before: datetime | None,
    not_after: datetime | None,
    beacon: Path | None,
    operator_secret: Path | None,
    beacon_name: str | None,
    keys_file: Path | None,
) -> int:
    """Make a key: write DIR/ID.key and print the record for KEYS.toml.

    With --beacon the secret is nobody's choice: it follows from a share that was committed to
    before the beacon was published, and from the beacon.
    """
    path = folder.absolute() / (file_stem(key_id) + _SUFFIX)
    record = format_record(
        key_id=key_id,
        unit=unit_id(unit, tokenizer),
        secret=str(path),
        context_width=context_width,
        rho=rho,
        account_share_q16=account_share_q16,
        scheme=scheme,
        scope=scope,
        not_before=not_before,
        not_after=not_after,
    )
    if beacon is None:
        secret = SecretKey(key_id, secrets.token_bytes(SECRET_BYTES))
    else:
        secret = _beacon_key(key_id, beacon, beacon_name, operator_secret, keys_file)
    write_key_file(path, secret)
    try:
        render.write_data(record)
    except (OSError, KeyboardInterrupt):
        path.unlink(missing_ok=True)  # a key whose record nobody has marks nothing
        raise
    say_what_was_done(path)
    return render.EXIT_DONE


def file_stem(key_id: str) -> str:
    """Return a file name for a key, without suffix: the id itself wherever that is safe.

    Other characters than unreserved ASCII are percent-encoded, so that different ids have
    different names; what would be too long is cut and told apart by a digest.
    """
    stem = re.sub(r"^[.-]", lambda found: f"%{ord(found[0]):02X}", quote(key_id, safe=""))
    if len(stem) <= _MAX_STEM:
        return stem
    digest = hashlib.sha256(key_id.encode()).hexdigest()
    return f"{stem[: _MAX_STEM - 17]}-{digest[:16]}"


def _beacon_key(
    key_id: str,
    beacon: Path,
    name: str | None,
    operator_secret: Path | None,
    keys_file: Path | None,
) -> SecretKey:
    """Return the key that follows from a committed share and a published value."""
    if operator_secret is None or keys_file is None:
        raise click.UsageError("--beacon needs --operator-secret and --keys")
    operator = parse_key_file(
        read_private_file(operator_secret, limit=MAX_KEY_FILE_BYTES), path=operator_secret
    )
    log = Desk(keys_file).log()
    entry = beacon_entry(operator, key_id, name or beacon.name)
    if log is None or entry not in log.read().index:
        raise CommitmentError(
            f"no share of {operator_secret} for key {key_id!a} and beacon "
            f"{name or beacon.name!a} is in the log; `watermark keys commit --operator-secret` "
            "logs one, before the beacon is published"
        )
    try:
        published = beacon.read_bytes()
    except OSError as err:
        raise KeyFileError(f"cannot read beacon {beacon}; correct the path") from err
    return beacon_secret(operator, key_id, published)


def unit_id(unit: str | None, tokenizer: Path | None) -> str:
    """Return the unit id that the options name."""
    if tokenizer is None:
        return WORDS_V1 if unit is None else unit
    if unit is not None:
        raise click.UsageError("--unit and --tokenizer exclude each other; give one of them")
    return TokenizerUnit.read(tokenizer).unit_id


def say_what_was_done(path: Path) -> None:
    """Say where the secret is, whether its folder is open, and what comes next."""
    folder = path.parent
    render.write_note(f"wrote the secret to {path}, readable by you only")
    mode = folder.stat().st_mode & 0o7777
    if mode & _OTHERS:
        render.write_note(
            f"warning: {folder} is open to every user of this machine (mode {mode:04o}); "
            f"run chmod 700 on it"
        )
    render.write_hints(
        [
            "add the record on standard output to KEYS.toml, whose first line is `schema = 1`",
            f"where KEYS.toml is kept in {folder}, `file:{path.name}` is enough as its `secret`",
            "back the key file up: without it, text marked with it can no longer be recognized",
        ]
    )
