"""Records and files of keys for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from watermark.keys import (
    KEYS_HEADER,
    KeyRecord,
    SecretKey,
    format_record,
    write_key_file,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 15, tzinfo=UTC)
TOKENS = f"tokenizer:sha256:{'ab' * 32}"


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


def secret_of(key_id: str) -> SecretKey:
    return SecretKey(key_id, sha256(key_id.encode()).digest())


def record(key_id: str, unit: str = "words/v1", **fields: Any) -> KeyRecord:
    return KeyRecord(key_id=key_id, unit=unit, secret=secret_of(key_id), **fields)


def write_keys(folder: Path, *records: dict[str, Any], head: str = "", tail: str = "") -> Path:
    """Write KEYS.toml, and the key files that are missing."""
    text = KEYS_HEADER + head
    for fields in records:
        place = folder / f"{fields['key_id']}.key"
        if not place.exists():
            write_key_file(place, secret_of(fields["key_id"]))
        text += "\n" + format_record(**{"unit": "words/v1", "secret": place.name, **fields})
    path = folder / "KEYS.toml"
    path.write_text(text + tail)
    return path
