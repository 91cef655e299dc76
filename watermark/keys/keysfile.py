"""`KEYS.toml`: the one file that an operator edits to add, rotate or retire a key.

Rule 1: it names secrets, and never holds one. Rule 2: an unknown field or form version refuses
the whole file, because a misspelt field would silently mean its default. Rule 3: a message names
the file, the record and its line, and quotes no value of the `secret` field.

Source: `watermark/spec/key-file.md`, section "KEYS.toml".
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import KeysConfigError, KeysError
from watermark.keys.keyfile import read_key_file
from watermark.keys.keyring import KeyRing, find_conflict
from watermark.keys.record import (
    DEFAULT_ACCOUNT_SHARE_Q16,
    DEFAULT_CONTEXT_WIDTH,
    DEFAULT_RHO,
    DEFAULT_SCHEME,
    KeyFields,
    KeyRecord,
    KeyState,
)
from watermark.keys.secret import check_key_id

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys.secret import SecretKey

KEYS_SCHEMA: Final = 1
KEYS_HEADER: Final = f"schema = {KEYS_SCHEMA}\n"
MAX_KEYS_BYTES: Final = 1 << 20  # some 3,000 records

_FILE_PREFIX: Final = "file:"
_RECORD_LINE: Final = re.compile(r"\s*\[\[\s*(?:key|\"key\"|'key')\s*\]\]")
_RECORD_PATH: Final = re.compile(r"\$\.key\[(\d+)\]")


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[key]]` as it stands in the file."""

    id: str
    unit: str
    secret: str
    context_width: int = DEFAULT_CONTEXT_WIDTH
    scheme: str = DEFAULT_SCHEME
    rho: float = DEFAULT_RHO
    account_share_q16: int = DEFAULT_ACCOUNT_SHARE_Q16
    state: str = KeyState.MARKING.value


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    schema: int
    key: tuple[_Row, ...] = ()


class _Source:
    """The file's name and text, to say where a mistake stands."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = [
            number
            for number, line in enumerate(text.split("\n"), start=1)  # as editors count
            if _RECORD_LINE.match(line)
        ]

    def error(
        self, message: str, *, record: int | None = None, key_id: str = ""
    ) -> KeysConfigError:
        """Return an error that names the file and, where known, the record and its line."""
        where = str(self._path)
        if record is not None and record < len(self._lines):
            where += f":{self._lines[record]}"
        if record is not None:
            where += f": record {record + 1}"
        if key_id:
            where += f" ({key_id!a})"
        return KeysConfigError(f"{where}: {message}")


def load_keys(path: Path) -> KeyRing:
    """Read `KEYS.toml` and every secret that it names.

    Args:
        path: The file; relative secret paths start from its folder.

    Returns:
        The ring of all its keys.

    Raises:
        KeysConfigError: The file is missing, malformed, or contradicts itself.
        KeyFileError: A secret's file is missing, damaged, too open, or of another key.
    """
    text = _read_text(path)
    source = _Source(path, text)
    rows = _decode(text, source)
    fields = tuple(_fields(row, index, source) for index, row in enumerate(rows))
    files = tuple(_secret_path(row, index, source, path) for index, row in enumerate(rows))
    conflict = find_conflict(
        (field.key_id, field.unit, field.state, file)
        for field, file in zip(fields, files, strict=True)
    )
    if conflict is not None:
        index, message = conflict
        raise source.error(message, record=index, key_id=fields[index].key_id)
    return _ring(fields, files, source)


def format_record(
    *,
    key_id: str,
    unit: str,
    secret: str,
    context_width: int = DEFAULT_CONTEXT_WIDTH,
    scheme: str = DEFAULT_SCHEME,
    rho: float = DEFAULT_RHO,
    account_share_q16: int = DEFAULT_ACCOUNT_SHARE_Q16,
    state: KeyState = KeyState.MARKING,
) -> str:
    """Return one record as TOML, ready to append to a file that begins with `KEYS_HEADER`.

    Args:
        key_id: Name of the epoch key.
        unit: What a token is: `words/v1`, or `tokenizer:sha256:` and a digest in hex.
        secret: Path of the key file, absolute or relative to `KEYS.toml`, without `file:`.
        context_width: Tokens before the position that seed it, 1..4.
        scheme: Name of the sampling scheme.
        rho: Correlation of the copula, 0 to 1.
        account_share_q16: Share of the positions, in 65536ths, that carry the account.
        state: What the key may be used for.

    Returns:
        A `[[key]]` table, every field written out, ending in a newline.

    Raises:
        KeysError: The key id is malformed.
        KeysConfigError: A value is outside its range, or the path is empty.
    """
    check_key_id(key_id)
    if not secret or secret.startswith(_FILE_PREFIX):
        raise KeysConfigError("the secret's path is empty or has a scheme; give a bare file path")
    fields = KeyFields(
        key_id=key_id,
        unit=unit,
        context_width=context_width,
        scheme=scheme,
        rho=rho,
        account_share_q16=account_share_q16,
        state=state,
    )
    values = {
        "id": _toml_string(fields.key_id),
        "unit": _toml_string(fields.unit),
        "context_width": str(fields.context_width),
        "scheme": _toml_string(fields.scheme),
        "rho": repr(float(fields.rho)),
        "account_share_q16": str(fields.account_share_q16),
        "secret": _toml_string(_FILE_PREFIX + secret),
        "state": _toml_string(fields.state.value),
    }
    return "[[key]]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def _read_text(path: Path) -> str:
    """Return the file's text, or say why there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEYS_BYTES + 1)
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise KeysConfigError(
            f"cannot read {path}: {reason[:1].lower()}{reason[1:]}; correct the path, "
            "`watermark keys new` prints a first record"
        ) from err
    if len(data) > MAX_KEYS_BYTES:
        raise KeysConfigError(f"{path} is longer than {MAX_KEYS_BYTES} bytes; remove retired keys")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise KeysConfigError(f"{path} is not UTF-8; save it as UTF-8") from None


def _decode(text: str, source: _Source) -> tuple[_Row, ...]:
    """Return the records of a file of this form."""
    try:
        table: dict[str, object] = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        raise source.error(f"not TOML: {_lower(str(err))}; correct the syntax") from None
    schema = table.get("schema")
    if type(schema) is not int or schema != KEYS_SCHEMA:  # True == 1
        raise source.error(
            f"`schema` is missing or not {KEYS_SCHEMA}; begin the file with "
            f"`schema = {KEYS_SCHEMA}`, or update this software"
        )
    try:
        return msgspec.convert(table, _File, strict=True).key
    except msgspec.ValidationError as err:
        found = _RECORD_PATH.search(str(err))
        record = int(found[1]) if found else None
        raise source.error(f"{_lower(str(err))}; see the key file form", record=record) from None


def _fields(row: _Row, index: int, source: _Source) -> KeyFields:
    """Return the row's public part, checked."""
    try:
        check_key_id(row.id)
        state = _state(row.state)
        return KeyFields(
            key_id=row.id,
            unit=row.unit,
            context_width=row.context_width,
            scheme=row.scheme,
            rho=row.rho,
            account_share_q16=row.account_share_q16,
            state=state,
        )
    except KeysError as err:
        raise source.error(str(err), record=index, key_id=row.id) from err


def _state(name: str) -> KeyState:
    """Return the state called `name`."""
    try:
        return KeyState(name)
    except ValueError:
        known = ", ".join(repr(state.value) for state in KeyState)
        raise KeysConfigError(f"state {name!a} is unknown; write one of {known}") from None


def _secret_path(row: _Row, index: int, source: _Source, path: Path) -> Path:
    """Return where the row's secret lies; refuse anything that may be the secret itself."""
    name = row.secret.removeprefix(_FILE_PREFIX)
    if not row.secret.startswith(_FILE_PREFIX) or not name:
        raise source.error(
            "`secret` names no file; write `file:` and the path of a key file, never the secret "
            "itself; if it stood here, replace the key",
            record=index,
            key_id=row.id,
        )
    return path.parent / name


def _ring(fields: tuple[KeyFields, ...], files: tuple[Path, ...], source: _Source) -> KeyRing:
    """Return the ring, each secret read once."""
    secrets: dict[str, SecretKey] = {}
    records = []
    for field, file in zip(fields, files, strict=True):
        if field.key_id not in secrets:
            secrets[field.key_id] = read_key_file(file, expected_id=field.key_id)
        records.append(
            KeyRecord(
                key_id=field.key_id,
                unit=field.unit,
                context_width=field.context_width,
                scheme=field.scheme,
                rho=field.rho,
                account_share_q16=field.account_share_q16,
                state=field.state,
                secret=secrets[field.key_id],
            )
        )
    try:
        return KeyRing(tuple(records))
    except KeysConfigError as err:
        raise source.error(str(err)) from err


def _toml_string(text: str) -> str:
    """Return `text` as a TOML basic string, whose escapes are JSON's and one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _lower(message: str) -> str:
    """Return another library's message in this project's form."""
    return message[:1].lower() + message[1:]
