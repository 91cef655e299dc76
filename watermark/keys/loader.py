"""From `KEYS.toml` and what it names to the ring that a process works with, again and again.

Rule 1: the file is taken whole or refused whole, and what was taken before stays as it is. Rule
2: what has not changed is not gone over again; the ring, or the refusal, is the one that reading
everything would give. Rule 3: a message names the file, the record and its line, and quotes no
value of the `secret` field.

Source: `watermark/spec/key-file.md`, section "KEYS.toml".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.errors import CommitmentError, KeysConfigError, KeysError
from watermark.keys.agreement import find_conflict
from watermark.keys.document import DocumentReader
from watermark.keys.history import History, HistoryReader, history_path
from watermark.keys.keylog import KeyLog, entry_of
from watermark.keys.keyring import KeyRing
from watermark.keys.keysfile import read_text
from watermark.keys.record import KeyFields, KeyRecord, KeyState
from watermark.keys.references import Secrets
from watermark.keys.regress import find_regress
from watermark.keys.scope import Pattern, Scope, index_scopes

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import datetime
    from pathlib import Path

    from watermark.keys.document import Document, KeyEntry
    from watermark.keys.secret import SecretKey


class KeysLoader:
    """Reads one `KEYS.toml` again and again, and of it only what has changed.

    A process keeps one, and calls :meth:`load` at start and at every reload. A file that is
    refused changes nothing: the caller goes on with the ring that it has.

    Args:
        path: The file; relative secret paths start from its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: Document | None = None
        self._reader = DocumentReader()
        self._secrets: Secrets | None = None
        self._records: dict[int, tuple[KeyEntry, KeyRecord]] = {}
        self._ring: KeyRing | None = None
        self._history = HistoryReader(history_path(path))
        self._held_against: History | None = None
        self._log: KeyLog | None = None
        self._agreed: tuple[tuple[Scope, ...], dict[Pattern, str]] | None = None
        self._entries_agreed: tuple[KeyEntry, ...] = ()
        self._entries: dict[int, tuple[KeyRecord, bytes]] = {}

    def load(self, *, now: datetime | None = None) -> KeyRing:
        """Read the file and every secret that it names.

        Args:
            now: The instant at which the keys are to be used. Held against it is what depends
                on time: commitments that are demanded, what the history has recorded, and the
                ring that was loaded before. None for detection alone, which depends on none.

        Returns:
            The ring of all its keys.

        Raises:
            KeysConfigError: The file is missing, malformed, contradicts itself, or sets back
                what was recorded or loaded before.
            KeyFileError: A secret's file is missing, damaged, too open, or of another key.
        """
        ring = self.load_text(read_text(self.path), now=now)
        self._ring = ring
        return ring

    def load_text(self, text: str, *, now: datetime | None = None) -> KeyRing:
        """Return the ring that a text would give in the place of the file.

        Args:
            text: The text.
            now: As in :meth:`load`.

        Raises:
            KeysConfigError: As :meth:`load`.
            KeyFileError: As :meth:`load`.
        """
        document = self._reader.read(self.path, text)
        self.document = document
        ring = self._ring_of(document, self._check_agreement(document))
        if now is not None:
            self._check_past(document, ring, now)
        return ring

    def _check_agreement(self, document: Document) -> dict[Pattern, str]:
        """Return which scope takes what; what was found without contradiction is not gone over."""
        known = self._agreed
        if known is None or known[0] != document.scopes:
            known = (document.scopes, _index_of(document))
        if self._agreed is not known:
            _check_records(document, None)
        elif self._entries_agreed != document.keys:
            before, after = self._entries_agreed, document.keys
            kept = set(map(id, before)) & set(map(id, after))
            changed = [entry for entry in (*before, *after) if id(entry) not in kept]
            _check_records(document, {(one.fields.scope, one.fields.unit) for one in changed})
        self._agreed, self._entries_agreed = known, document.keys
        return known[1]

    def _ring_of(self, document: Document, patterns: dict[Pattern, str]) -> KeyRing:
        """Return the ring, each secret opened once."""
        if self._secrets is None or self._secrets.options != document.options:
            self._secrets = Secrets(self.path.parent, document.options)
        opened: dict[str, SecretKey] = {}
        known, kept = self._records, {}
        records: list[KeyRecord] = []
        retired: list[KeyFields] = []
        for number, entry in enumerate(document.keys):
            fields = entry.fields
            state = fields.state
            if state is KeyState.ARCHIVED or state is KeyState.DESTROYED:
                retired.append(fields)
                continue
            secret = opened.get(fields.key_id)
            if secret is None:
                secret = opened[fields.key_id] = self._open(document, number, entry)
            found = known.get(id(entry))
            if found is not None and found[0] is entry and found[1].secret is secret:
                record = found[1]
            else:
                record = _record(document, number, fields, secret)
            kept[id(entry)] = (entry, record)
            records.append(record)
        self._records = kept
        try:
            return KeyRing(
                tuple(records),
                scopes=document.scopes,
                retired=tuple(retired),
                uncommitted=self._uncommitted(document, records),
                checked=patterns,
            )
        except KeysConfigError as err:
            raise document.source.error(str(err)) from err

    def _uncommitted(
        self, document: Document, records: list[KeyRecord]
    ) -> frozenset[tuple[str, str]]:
        """Return the records that may not mark before their commitment is logged."""
        options = document.options
        if not options.require_commitment:
            return frozenset()
        try:
            if self._log is None or self._log.options != options:
                self._log = KeyLog(self.path.parent, options)
            logged = self._log.read()
        except CommitmentError as err:
            line = document.source.line_with("require_commitment")
            raise CommitmentError(f"{document.source.place(line)}: {err}") from err
        known, kept, missing = self._entries, {}, set()
        for record in records:
            if record.secret.is_context_only:
                continue
            found = known.get(id(record))
            entry = found[1] if found and found[0] is record else entry_of(record)
            kept[id(record)] = (record, entry)
            needs_stamp = options.require_timestamp
            if not logged.is_committed(entry, record.key_id, needs_stamp=needs_stamp):
                missing.add((record.key_id, record.unit))
        self._entries = kept
        return frozenset(missing)

    def _open(self, document: Document, number: int, entry: KeyEntry) -> SecretKey:
        """Return the secret of a record, or say in which record the reference is wrong."""
        if self._secrets is None:  # pragma: no cover - set by the only caller
            raise KeysConfigError("no secrets")
        try:
            return self._secrets.open(entry.reference, entry.fields.key_id)
        except KeysError as err:
            where = document.source.where(number, entry.fields.key_id)
            raise type(err)(f"{where}: {err}") from err

    def _check_past(self, document: Document, ring: KeyRing, now: datetime) -> None:
        """Refuse what sets back what was loaded or recorded, and what marks uncommitted."""
        found = None if self._ring is None else find_regress(self._ring, ring, now)
        if found is None:
            history = self._history.read()
            is_known = history is self._held_against and self._ring is not None
            before = self._ring.records if is_known and self._ring is not None else ()
            found = history.find_regress(ring, now, seen=set(map(id, before)))
            self._held_against = history if found is None else None
        if found is not None:
            key_id, unit, message = found
            raise document.source.record_error(_number_of(document, key_id, unit), message, key_id)
        if not ring.uncommitted:
            return
        for record in ring.records:
            is_missing = (record.key_id, record.unit) in ring.uncommitted
            if is_missing and record.state_at(now) is KeyState.MARKING:
                number = _number_of(document, record.key_id, record.unit)
                stamped = " and stamped" * document.options.require_timestamp
                message = (
                    f"the key marks now, and its commitment is not logged{stamped}; "
                    "run `watermark keys commit`, or set a later not_before"
                )
                raise document.source.record_error(number, message, record.key_id)


def load_keys(path: Path, *, now: datetime | None = None) -> KeyRing:
    """Read `KEYS.toml` and every secret that it names.

    Args:
        path: The file; relative secret paths start from its folder.
        now: The instant at which the keys are to be used; None for detection alone.

    Returns:
        The ring of all its keys.

    Raises:
        KeysConfigError: The file is missing, malformed, or contradicts itself or its history.
        CommitmentError: The log that it demands cannot be used.
        KeyHistoryError: The history is damaged.
        KeyFileError: A secret's file is missing, damaged, too open, or of another key.
    """
    return KeysLoader(path).load(now=now)


def _index_of(document: Document) -> dict[Pattern, str]:
    """Return which scope takes what, or say which scopes contradict each other."""
    patterns, conflict = index_scopes(document.scopes)
    if conflict is not None:
        number, message = conflict
        raise document.source.scope_error(number, message, document.scopes[number].name)
    return patterns


def _check_records(document: Document, only: Container[tuple[str, str]] | None) -> None:
    """Refuse records that contradict each other or the scopes, before any secret is opened.

    Args:
        document: The file.
        only: The scopes and units that have changed; None for all.
    """
    source = document.source
    if not document.keys:
        raise source.error("no key is given; add a record, `watermark keys new` prints one")
    conflict = find_conflict(
        [entry.fields for entry in document.keys],
        [entry.reference for entry in document.keys],
        [scope.name for scope in document.scopes],
        only=only,
    )
    if conflict is not None:
        number, message = conflict
        raise source.record_error(number, message, document.keys[number].fields.key_id)
    used = {entry.fields.scope for entry in document.keys}
    for number, scope in enumerate(document.scopes):
        if scope.name not in used:
            message = "no key has this scope; add a record with it, or remove the scope"
            raise source.scope_error(number, message, scope.name)


def _record(document: Document, number: int, fields: KeyFields, secret: SecretKey) -> KeyRecord:
    """Return a record with its secret."""
    try:
        return KeyRecord.of(fields, secret)
    except KeysConfigError as err:
        raise document.source.record_error(number, str(err), fields.key_id) from err


def _number_of(document: Document, key_id: str, unit: str) -> int:
    """Return the position of a record."""
    for number, entry in enumerate(document.keys):
        if (entry.fields.key_id, entry.fields.unit) == (key_id, unit):
            return number
    return 0
