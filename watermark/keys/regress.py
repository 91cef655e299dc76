"""Whether a later set of keys sets one back behind what it was.

Rule: a key goes forward only, and an id keeps its material for ever; what was loaded before is
held against what is to replace it, as the history is in `history.py`.

Source: `watermark/spec/key-file.md`, section "States".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.keys.record import (
    KeyRecord,
)

if TYPE_CHECKING:
    from datetime import datetime

    from watermark.keys.keyring import KeyRing
    from watermark.keys.secret import SecretKey


def find_regress(before: KeyRing, after: KeyRing, now: datetime) -> tuple[str, str, str] | None:
    """Return the first key that a later ring sets back; None where there is none.

    Returns:
        Key id, unit, and a message with the remedy.
    """
    gone, come = after.edit_since(before)[0]
    known = {(fields.key_id, fields.unit): fields for fields in gone}
    secrets = {one.key_id: one.secret for one in gone if isinstance(one, KeyRecord)}
    for fields in come:
        old = known.get((fields.key_id, fields.unit))
        message = "" if old is None else fields.regress_from(old, now)
        secret = secrets.get(fields.key_id)
        if not message and isinstance(fields, KeyRecord) and secret is not None:
            message = _reuse(fields, secret)
        if message:
            return fields.key_id, fields.unit, message
    return None


def _reuse(record: KeyRecord, known: SecretKey) -> str:
    """Return what is wrong with a key whose id had other material; empty where nothing is."""
    if record.secret.is_context_only or known.is_context_only or record.secret == known:
        return ""
    return (
        f"key {record.key_id!a} has other material than before; one id has one secret for ever, "
        "so choose another id for the new one, or restore the old"
    )
