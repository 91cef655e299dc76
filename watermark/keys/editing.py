"""Edits of the text of `KEYS.toml` that leave everything else as it stands, comments too.

Rule 1: text in, text out; nothing here touches a file. Rule 2: only the fields that are named
change.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from watermark.errors import KeysConfigError
from watermark.keys.keysfile import format_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from watermark.keys.record import (
        KeyFields,
    )

_TABLE: Final = re.compile(r"^(?=\[\[)", re.MULTILINE)


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

    def change(document: tomlkit.TOMLDocument, place: int) -> None:
        record = document["key"][place]
        for name, value in values.items():
            if value is None:
                record.pop(name, None)
            else:
                record[name] = value

    return _edited(text, key_id, unit, change)


def remove_records(text: str, key_id: str) -> str:
    """Return the text without the records of a key.

    Raises:
        KeysConfigError: The text has no such key.
    """

    def remove(document: tomlkit.TOMLDocument, place: int) -> None:
        if len(document["key"]) == 1:
            document.remove("key")  # an empty array would be written out
        else:
            del document["key"][place]

    return _edited(text, key_id, None, remove)


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


def _edited(
    text: str,
    key_id: str,
    unit: str | None,
    change: Callable[[tomlkit.TOMLDocument, int], None],
) -> str:
    """Return the text with a change to each record of a key, each given by its place.

    Of very many tables only those are parsed that name the key. Where it is written in another
    way, or a table is not TOML by itself, the text is taken as a whole.

    Raises:
        KeysConfigError: The text has no such key.
    """
    names = (json.dumps(key_id, ensure_ascii=False), f"'{key_id}'")
    for pieces in (_TABLE.split(text), [text]):
        is_changed = False
        for number, piece in enumerate(pieces):
            if len(pieces) == 1 or any(name in piece for name in names):
                document = _parse(piece)
                if document is None:
                    break
                for place in _places_of(document, key_id, unit):
                    change(document, place)
                    is_changed = True
                pieces[number] = tomlkit.dumps(document)
        else:
            if is_changed:
                return "".join(pieces)
    raise KeysConfigError(f"the file has no key {key_id!a}; `watermark keys list` names them")


def _parse(text: str) -> tomlkit.TOMLDocument | None:
    """Return a text as TOML that keeps its form; None where it is none."""
    try:
        return tomlkit.parse(text)
    except TOMLKitError:
        return None


def _places_of(document: tomlkit.TOMLDocument, key_id: str, unit: str | None) -> list[int]:
    """Return the places of a key's records, the last one first."""
    records: Any = document.get("key", ())
    return [
        place
        for place in reversed(range(len(records)))
        if records[place].get("id") == key_id and unit in {None, records[place].get("unit")}
    ]
