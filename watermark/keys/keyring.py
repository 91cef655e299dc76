"""The keys that a process holds: which one marks, and which ones detect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from watermark.errors import KeysConfigError
from watermark.keys.record import KeyRecord, KeyState

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator


@dataclass(frozen=True, slots=True)
class KeyRing:
    """An immutable set of key records that do not contradict each other.

    Attributes:
        records: The records, in the order of the file.

    Raises:
        KeysConfigError: There is no record, or two of them contradict each other.
    """

    records: tuple[KeyRecord, ...]

    def __post_init__(self) -> None:
        if not self.records:
            raise KeysConfigError("no key is given; add a record, `watermark keys new` prints one")
        conflict = find_conflict(
            (record.key_id, record.unit, record.state, record.secret) for record in self.records
        )
        if conflict is not None:
            raise KeysConfigError(conflict[1])
        self._check_secrets_apart()

    def _check_secrets_apart(self) -> None:
        """Refuse one secret under two ids: disclosing one epoch would disclose the other."""
        ids: dict[bytes, str] = {}
        for record in self.records:
            other = ids.setdefault(record.secret.reveal(), record.key_id)
            if other != record.key_id:
                raise KeysConfigError(
                    f"keys {other!a} and {record.key_id!a} have one secret; give each its own, "
                    "`watermark keys new` makes one"
                )

    def marking(self, unit: str) -> KeyRecord:
        """Return the record that marks new text of `unit`.

        Args:
            unit: What a token is, as in `KeyRecord.unit`.

        Returns:
            The one record of that unit in state `marking`.

        Raises:
            KeysConfigError: No key marks that unit.
        """
        for record in self.records:
            if record.unit == unit and record.state is KeyState.MARKING:
                return record
        raise KeysConfigError(
            f"no key marks unit {unit!a}; add a record with this unit and state 'marking', "
            "`watermark keys new` prints one"
        )

    def by_id(self, key_id: str) -> tuple[KeyRecord, ...]:
        """Return the records of the key `key_id`, one per unit; none where it is unknown."""
        return tuple(record for record in self.records if record.key_id == key_id)

    @property
    def units(self) -> tuple[str, ...]:
        """The units of all records, each once, in the order of the file."""
        return tuple(dict.fromkeys(record.unit for record in self.records))

    def __iter__(self) -> Iterator[KeyRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


def find_conflict(
    rows: Iterable[tuple[str, str, KeyState, Hashable]],
) -> tuple[int, str] | None:
    """Return the first row that contradicts one before it, and why; None where all agree.

    Args:
        rows: Key id, unit, state, and what identifies the secret: its file, or the key itself.

    Returns:
        The position of the later row, from 0, and a message with the remedy.
    """
    pairs: set[tuple[str, str]] = set()
    markers: dict[str, str] = {}
    secrets: dict[str, Hashable] = {}
    for index, (key_id, unit, state, secret) in enumerate(rows):
        if (key_id, unit) in pairs:
            return index, f"key {key_id!a} has two records for unit {unit!a}; remove one"
        if secrets.setdefault(key_id, secret) != secret:
            return index, (
                f"key {key_id!a} is given two secrets; one id has one secret, "
                "so name the same file in each of its records, or choose another id"
            )
        if state is KeyState.MARKING and (other := markers.setdefault(unit, key_id)) != key_id:
            return index, (
                f"keys {other!a} and {key_id!a} both mark unit {unit!a}; "
                "set state 'detect' in the older one"
            )
        pairs.add((key_id, unit))
    return None
