"""Delivered contexts as `watermark ledger contexts` wrote them, for the keys of an audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from watermark.cli import render
from watermark.errors import AuditPlanError
from watermark.extras import load_extra
from watermark.keys import LABEL_CONTEXT
from watermark.ledger import engine_context_key, load_settings, width_of
from watermark.radioactivity import Traffic

if TYPE_CHECKING:
    from pathlib import Path

    from watermark.keys import KeyRecord, KeyRing


class _Row(msgspec.Struct):
    key_id: str
    unit: str
    fingerprint: int
    conversations: int


def read_contexts(
    path: Path, ring: KeyRing, unit: str, context_width: int, ledger: Path | None = None
) -> list[Traffic]:
    """Return delivered contexts by key; of keys whose contexts have another width, none.

    Args:
        path: A .parquet or .jsonl file.
        ring: The keys that marked.
        unit: Of this unit only.
        context_width: Units in a context of the keys that are tested.
        ledger: The LEDGER.toml, whose secret made the fingerprints of what engines marked.

    Raises:
        AuditPlanError: It cannot be read, a key or the ledger is not at hand, or nothing is left.
        LedgerError: The ledger cannot be read.
        KeyFileError: Its secret cannot.
    """
    by_key: dict[str, list[_Row]] = {}
    for row in _rows(path):
        if row.unit == unit:
            by_key.setdefault(row.key_id, []).append(row)
    if not by_key:
        raise AuditPlanError(
            f"{path} holds no context in unit {unit}; it is the ledger of another deployment, or "
            "empty"
        )
    records = {key_id: _record(ring, key_id, unit) for key_id in sorted(by_key)}
    others = [key_id for key_id, one in records.items() if width_of(one) != context_width]
    if others:
        told = ", ".join(f"{key_id!a} ({width_of(records[key_id])})" for key_id in others)
        render.write_note(
            f"left out: contexts of other widths than {context_width}, delivered under {told}"
        )
    return [
        _traffic(by_key[key_id], record, _context_key(record, ledger))
        for key_id, record in records.items()
        if key_id not in others
    ]


def _record(ring: KeyRing, key_id: str, unit: str) -> KeyRecord:
    found = [one for one in ring.by_id(key_id) if one.unit == unit]
    if not found:
        raise AuditPlanError(
            f"the ledger was written under key {key_id!a}, which is not at hand; give the "
            "KEYS.toml of the deployment that delivered"
        )
    return found[0]


def _context_key(record: KeyRecord, ledger: Path | None) -> bytes:
    if not record.is_foreign:
        return record.secret.subkey(LABEL_CONTEXT, 16)
    if ledger is None:
        raise AuditPlanError(
            f"contexts were delivered under key {record.key_id!a}, which is an engine's: the "
            "ledger's own secret made their fingerprints; give --ledger with its LEDGER.toml"
        )
    return engine_context_key(load_settings(ledger).secret())


def _traffic(rows: list[_Row], record: KeyRecord, context_key: bytes) -> Traffic:
    table = sorted((one.fingerprint, one.conversations) for one in rows)
    return Traffic(
        key_id=record.key_id,
        fingerprints=np.array([one for one, _ in table], np.uint64),
        conversations=np.array([count for _, count in table], np.int64),
        context_key=context_key,
        is_engines=record.is_foreign,
    )


def _rows(path: Path) -> list[_Row]:
    try:
        if path.suffix == ".parquet":
            return msgspec.convert(_parquet(path), list[_Row])
        return [msgspec.json.decode(line, type=_Row) for line in path.read_bytes().splitlines()]
    except OSError as err:
        raise AuditPlanError(f"cannot read {path}; correct the path") from err
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError):
        raise AuditPlanError(
            f"{path} holds no contexts; write it with `watermark ledger contexts`"
        ) from None


def _parquet(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    parquet = load_extra("pyarrow.parquet", "ledger", "Parquet files need", AuditPlanError)
    return parquet.read_table(path).to_pylist()
