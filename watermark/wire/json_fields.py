"""Fields of a JSON object, changed without touching what the others hold: not a digit of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


def raw_fields(data: bytes) -> dict[str, msgspec.Raw]:
    """Return an object's fields, their values as they are written.

    Raises:
        msgspec.DecodeError: It is no JSON object.
    """
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw])


def with_fields(data: bytes, changes: Mapping[str, Any]) -> bytes:
    """Return an object with some fields set; the same bytes where there are none.

    Raises:
        msgspec.DecodeError: It is no JSON object.
    """
    if not changes:
        return data
    encoded = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in changes.items()}
    return msgspec.json.encode(raw_fields(data) | encoded)
