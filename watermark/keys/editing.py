"""Edits of the text of `KEYS.toml` that leave everything else as it stands, comments too.

Rule 1: text in, text out; nothing here touches a file. Rule 2: only the fields that are named
change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from watermark.errors import KeysConfigError
from watermark.keys.keysfile import format_fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from watermark.keys.record import KeyFields


def set_fields(
    text: str, key_id: str, values: Mapping[str, str | datetime | None], *, unit: str | None = None
) -> str:
    """Return the text with fields of a key set, in each of its records.

    Args:
        text: The text.
        key_id: Which key.
        values: What is set; None takes a field out.
        unit: Only the record of this unit.

    Raises:
        KeysConfigError: The text has no such key.
    """
    document = _parse(text)
    records = _records(document, key_id, unit)
    for record in records:
        for name, value in values.items():
            if value is None:
                record.pop(name, None)
            else:
                record[name] = value
    return tomlkit.dumps(document)


def remove_records(text: str, key_id: str) -> str:
    """Return the text without the records of a key.

    Raises:
        KeysConfigError: The text has no such key.
    """
    document = _parse(text)
    _records(document, key_id, None)
    tables = document["key"]
    for number in reversed(range(len(tables))):
        if tables[number].get("id") == key_id:
            del tables[number]
    return tomlkit.dumps(document)


def add_record(text: str, fields: KeyFields, reference: str) -> str:
    """Return the text with a record at its end."""
    return f"{text.rstrip()}\n\n{format_fields(fields, reference)}"


def add_table(text: str, table: str) -> str:
    """Return the text with a table before the first key or scope, so that it stands on its own."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.lstrip().startswith("[["):
            return "\n".join([*lines[:number], *table.split("\n"), *lines[number:]])
    return f"{text.rstrip()}\n\n{table}"


def _parse(text: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as err:
        raise KeysConfigError("the file is not TOML; `watermark keys check` says where") from err


def _records(document: tomlkit.TOMLDocument, key_id: str, unit: str | None) -> list[Any]:
    found = [
        record
        for record in document.get("key", ())
        if record.get("id") == key_id and unit in {None, record.get("unit")}
    ]
    if not found:
        raise KeysConfigError(f"the file has no key {key_id!a}; `watermark keys list` names them")
    return found
