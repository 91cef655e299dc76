"""How a ring finds its records, made from the index before, so that an edit costs its own size.

Rule 1: an index never changes. Rule 2: what it says follows from the records and scopes that it
holds, not from the edits that led to them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import msgspec

from watermark.errors import KeysConfigError
from watermark.keys.record import (
    KeyFields,
    KeyRecord,
    values_of,
)

if TYPE_CHECKING:
    from watermark.keys.edit import Edit
    from watermark.keys.scope import Pattern, Scope

_START: Final = attrgetter("start")


@dataclass(frozen=True, slots=True, kw_only=True)
class RingIndex:
    """How a ring finds its records; made from the one before, so that an edit costs its size.

    Attributes:
        patterns: Which scope takes what.
        epochs: The records that may mark at some instant, by scope and unit, in order of time.
        owners: Which key has a material, by its digest, and how many records.
        total: The sum of the digests of all public content, which names it.
        name: What tells this index from every other.
        base: The name of the one that it was made from.
        records: What that one held and this one does not, and the reverse.
        scopes: The same of scopes.
    """

    patterns: dict[Pattern, str] = field(default_factory=dict)
    epochs: dict[tuple[str, str], tuple[KeyRecord, ...]] = field(default_factory=dict)
    owners: dict[bytes, tuple[str, int]] = field(default_factory=dict, repr=False)
    total: int = 0
    name: object = field(default_factory=object, repr=False)
    base: object = field(default=None, repr=False)
    records: Edit[KeyFields] = ((), ())
    scopes: Edit[Scope] = ((), ())

    def revised(
        self,
        patterns: dict[Pattern, str],
        records: Edit[KeyFields],
        scopes: Edit[Scope],
    ) -> RingIndex:
        """Return the index after an edit.

        Args:
            patterns: Which scope takes what, then.
            records: The records that are gone, and those that have come.
            scopes: The same of scopes.

        Raises:
            KeysConfigError: Two keys have one secret: disclosing one would disclose the other.
        """
        epochs, owners, total = dict(self.epochs), dict(self.owners), self.total
        for record in records[0]:
            total -= _digest_of(record)
            if isinstance(record, KeyRecord):
                _disown(owners, record)
                _leave(epochs, record)
        for record in records[1]:
            total += _digest_of(record)
            if isinstance(record, KeyRecord):
                _own(owners, record)
                _join(epochs, record)
        total += sum(map(_digest_of, scopes[1])) - sum(map(_digest_of, scopes[0]))
        return RingIndex(
            patterns=patterns,
            epochs=epochs,
            owners=owners,
            total=total,
            base=self.name,
            records=records,
            scopes=scopes,
        )


def _own(owners: dict[bytes, tuple[str, int]], record: KeyRecord) -> None:
    """Note a record's material, and refuse one secret under two ids."""
    if not record.secret.is_epoch_secret:
        return
    material = hashlib.sha256(record.secret.reveal()).digest()
    owner, count = owners.get(material, (record.key_id, 0))
    if owner != record.key_id:
        raise KeysConfigError(
            f"keys {owner!a} and {record.key_id!a} have one secret; give each its own, "
            "`watermark keys new` makes one"
        )
    owners[material] = (owner, count + 1)


def _disown(owners: dict[bytes, tuple[str, int]], record: KeyRecord) -> None:
    """Forget a record's material."""
    if not record.secret.is_epoch_secret:
        return
    material = hashlib.sha256(record.secret.reveal()).digest()
    owner, count = owners.pop(material)
    if count > 1:
        owners[material] = (owner, count - 1)


def _join(epochs: dict[tuple[str, str], tuple[KeyRecord, ...]], record: KeyRecord) -> None:
    """Put a record that may mark into its order of time."""
    if record.claims:
        place = (record.scope, record.unit)
        members = (*epochs.get(place, ()), record)
        epochs[place] = members if len(members) == 1 else tuple(sorted(members, key=_START))


def _leave(epochs: dict[tuple[str, str], tuple[KeyRecord, ...]], record: KeyRecord) -> None:
    """Take a record out."""
    place = (record.scope, record.unit)
    rest = tuple(one for one in epochs.pop(place, ()) if one is not record)
    if rest:
        epochs[place] = rest


def _digest_of(part: KeyFields | Scope) -> int:
    """Return what names the public content of a record or a scope, as a number."""
    if isinstance(part, KeyFields):
        name = part.secret.fingerprint if isinstance(part, KeyRecord) else ""
        content = msgspec.json.encode((list(values_of(part).items()), name))
    else:
        content = msgspec.json.encode(part)
    return int.from_bytes(hashlib.sha256(content).digest(), "little")
