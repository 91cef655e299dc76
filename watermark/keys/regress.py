"""Whether a later set of keys sets one back behind what it was.

Rule: a key goes forward only, and an id keeps its material for ever; what was loaded before is
held against what is to replace it, as the history is in `history.py`.

Source: `watermark/spec/key-file.md`, section "States".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.keys.record import KeyFields, KeyRecord

if TYPE_CHECKING:
    from datetime import datetime

    from watermark.keys.keyring import KeyRing
    from watermark.keys.secret import SecretKey


def find_regress(before: KeyRing, after: KeyRing, now: datetime) -> tuple[str, str, str] | None:
    """Return the first key that a later ring sets back; None where there is none.

    Returns:
        Key id, unit, and a message with the remedy.
    """
    kept = set(map(id, before.records))
    changed = [fields for fields in after.records if id(fields) not in kept]
    if not changed and after.retired == before.retired:
        return None
    known: dict[tuple[str, str], KeyFields] = {
        (fields.key_id, fields.unit): fields for fields in (*before.records, *before.retired)
    }
    secrets = {record.key_id: record.secret for record in before.records}
    for fields in (*changed, *after.retired):
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
