"""A key for first steps: made where none marks the embedded model's unit."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from watermark.errors import KeysConfigError
from watermark.keys import (
    KEYS_HEADER,
    KeyRing,
    SecretKey,
    format_record,
    load_keys,
    write_key_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DIGEST_HEAD = 8


def marking_ring(path: Path, unit: str, say: Callable[[str], None]) -> KeyRing:
    """Return the keys of a file, with one that marks the unit.

    A new record is appended; what the file holds stays as it is.

    Args:
        path: A `KEYS.toml`, made where there is none.
        unit: The unit that must be marked.
        say: Told what was made.

    Raises:
        KeysError: The file, or a secret that it names, cannot be used.
    """
    known = ""
    if path.exists():
        ring = load_keys(path)
        try:
            ring.marking(unit, now=_now())
        except KeysConfigError:
            say(f"no key marks {unit} (another Python makes another built-in tokenizer)")
        else:
            return ring
        known = path.read_text(encoding="utf-8")
    key_id = f"quickstart-{unit.rpartition(':')[2].replace('/', '-')[:_DIGEST_HEAD]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    secret_path = path.parent / f"{key_id}.key"
    if secret_path.exists():
        say(f"found key {key_id} in {path.parent} without a record")
    else:
        write_key_file(secret_path, SecretKey(key_id, secrets.token_bytes(32)))
        say(f"made key {key_id} in {path.parent}")
    record = format_record(key_id=key_id, unit=unit, secret=secret_path.name)
    return _replace(path, f"{known or KEYS_HEADER}\n{record}")


def _now() -> datetime:
    """Return the time of day; the command line is where clocks are read."""
    return datetime.now(UTC)  # noqa: TID251 - the command line


def _replace(path: Path, text: str) -> KeyRing:
    """Give the file a new text at once, and only one that can be read."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        ring = load_keys(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return ring
