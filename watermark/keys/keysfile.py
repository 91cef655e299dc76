"""The file `KEYS.toml` itself: reading its text safely, and writing a record as it stands there.

Rule 1: it names secrets, and never holds one. Rule 2: it is read in one piece, from one open
descriptor. What a text says is read in `document.py`, what it means in `loader.py`.

Source: `watermark/spec/key-file.md`, section "KEYS.toml".
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from watermark.errors import KeysConfigError
from watermark.keys.document import KEYS_SCHEMA
from watermark.keys.record import (
    DEFAULT_ACCOUNT_SHARE_Q16,
    DEFAULT_CONTEXT_WIDTH,
    DEFAULT_RHO,
    DEFAULT_SCHEME,
    DEFAULT_SCOPE,
    TIME_FIELDS,
    KeyFields,
    format_time,
)
from watermark.keys.secret import check_key_id
from watermark.keys.states import KeyState

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from watermark.keys.foreign import Parameters, Scalar

KEYS_HEADER: Final = f"schema = {KEYS_SCHEMA}\n"
MAX_KEYS_BYTES: Final = 1 << 24  # some 50,000 records

_FILE_PREFIX: Final = "file:"
_OTHERS_WRITE: Final = 0o002


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
    scope: str = DEFAULT_SCOPE,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    compromised_at: datetime | None = None,
    disclosed_at: datetime | None = None,
    parameters: Parameters = (),
) -> str:
    """Return one record as TOML, ready to append to a file that begins with `KEYS_HEADER`.

    Args:
        key_id: Name of the epoch key.
        unit: What a token is: `words/v1`, or `tokenizer:sha256:` and a digest in hex.
        secret: Path of the key file, absolute or relative to `KEYS.toml`, without `file:`.
        context_width: Tokens before the position that seed it, 1..4; an engine's may be wider.
        scheme: Name of the sampling scheme.
        rho: Correlation of the copula, 0 to 1.
        account_share_q16: Share of the positions, in 65536ths, that carry the account.
        state: What the record says of itself; left out where dates tell it.
        scope: Which requests it marks; left out where it is `default`.
        not_before: It marks from this instant on.
        not_after: It marks before this instant.
        compromised_at: Since when others may know the secret.
        disclosed_at: Since when its context subkey is public.
        parameters: What an engine's scheme needs beside its key.

    Returns:
        A `[[key]]` table, ending in a newline.

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
        scope=scope,
        not_before=not_before,
        not_after=not_after,
        compromised_at=compromised_at,
        disclosed_at=disclosed_at,
        parameters=parameters,
    )
    return format_fields(fields, _FILE_PREFIX + secret)


def format_fields(fields: KeyFields, reference: str) -> str:
    """Return a record as TOML.

    Args:
        fields: Its public part.
        reference: The field `secret`.
    """
    values = {
        "id": _toml_string(fields.key_id),
        "unit": _toml_string(fields.unit),
        "context_width": str(fields.context_width),
        "scheme": _toml_string(fields.scheme),
        "rho": repr(float(fields.rho)),
        "account_share_q16": str(fields.account_share_q16),
        "secret": _toml_string(reference),
    }
    if fields.is_foreign:
        del values["rho"], values["account_share_q16"]
    if fields.parameters:
        pairs = (f"{name} = {_toml_scalar(value)}" for name, value in fields.parameters)
        values["parameters"] = f"{{ {', '.join(pairs)} }}"
    if fields.scope != DEFAULT_SCOPE:
        values["scope"] = _toml_string(fields.scope)
    for name in TIME_FIELDS:
        moment = getattr(fields, name)
        if moment is not None:
            values[name] = format_time(moment)
    if fields.state is not KeyState.MARKING or not fields.is_dated:
        values["state"] = _toml_string(fields.state.value)
    return "[[key]]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def read_text(path: Path) -> str:
    """Return the text of a `KEYS.toml`, read in one piece.

    Raises:
        KeysConfigError: It cannot be read, changed meanwhile, is too long or not UTF-8, or
            everybody may write it.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read(MAX_KEYS_BYTES + 1)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise KeysConfigError(
            f"cannot read {path}: {reason[:1].lower()}{reason[1:]}; correct the path, "
            "`watermark keys new` prints a first record"
        ) from err
    if len(data) > MAX_KEYS_BYTES:
        raise KeysConfigError(
            f"{path}:1: the file is longer than {MAX_KEYS_BYTES} bytes; remove retired keys"
        )
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise KeysConfigError(
            f"{path}:1: the file changed while it was read; write another and rename it"
        )
    if after.st_mode & _OTHERS_WRITE:
        raise KeysConfigError(f"{path}:1: everybody may write the file; run chmod o-w on it")
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
    raise KeysConfigError(f"{path}:{line}: the file is not UTF-8; save it as UTF-8")


def _toml_scalar(value: Scalar) -> str:
    """Return a parameter as TOML, whose numbers and booleans are JSON's."""
    return _toml_string(value) if isinstance(value, str) else json.dumps(value)


def _toml_string(text: str) -> str:
    """Return `text` as a TOML basic string, whose escapes are JSON's and one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
