"""From `KEYS.toml` and what it names to the ring that a process works with, again and again.

Rule 1: the file is taken whole or refused whole, and what was taken before stays as it is. Rule
2: what has not changed is not gone over again; the ring, or the refusal, is the one that reading
everything would give. Rule 3: a message names the file, the record and its line, and quotes no
value of the `secret` field.

Source: `watermark/spec/key-file.md`, section "KEYS.toml".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from watermark.errors import CommitmentError, KeysConfigError, KeysError
from watermark.keys.agreement import find_conflict
from watermark.keys.document import DocumentReader
from watermark.keys.edit import differing
from watermark.keys.history import History, HistoryReader, history_path
from watermark.keys.keylog import LOG_HEADS, Commitments, KeyLog
from watermark.keys.keyring import KeyRing
from watermark.keys.keysfile import read_text
from watermark.keys.record import (
    KeyFields,
    KeyRecord,
)
from watermark.keys.references import Secrets
from watermark.keys.regress import find_regress
from watermark.keys.ring_index import RingIndex
from watermark.keys.roster import Roster
from watermark.keys.scope import index_scopes
from watermark.keys.states import KeyState
from watermark.keys.watch import Stamp, stamp_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from watermark.keys.document import Document, KeyEntry
    from watermark.keys.edit import Edit

_SPARE: Final = 256  # secrets of records that are gone: forgotten once there are so many


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What was made of a file that agrees with itself; the next one begins with it."""

    document: Document | None = None
    roster: Roster = field(default_factory=Roster)
    index: RingIndex = field(default_factory=RingIndex)
    secrets: Secrets | None = None
    records: dict[int, KeyFields] = field(default_factory=dict)  # by `id` of their entries


class KeysLoader:
    """Reads one `KEYS.toml` again and again, and of it only what has changed.

    A process keeps one. A file that is refused changes nothing: the caller goes on with the ring
    that it has.

    Args:
        path: The file; relative secret paths start from its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: Document | None = None
        self._reader = DocumentReader()
        self._secrets: Secrets | None = None
        self._last = _Loaded()
        self._stamps: dict[str, Stamp] = {}
        self._commitments: Commitments | None = None
        self._ring: KeyRing | None = None
        self._history = HistoryReader(history_path(path))
        self._passed: tuple[History, KeyRing] | None = None

    def load(self, *, now: datetime | None = None) -> KeyRing:
        """Read the file and every secret that it names, as they all are now.

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
        ring = self.load_text(self.read(), now=now, before=self._ring)
        self._ring = ring
        return ring

    def read(self) -> str:
        """Return the text of the file, and look at every secret that may have changed.

        Raises:
            KeysConfigError: It cannot be read safely.
        """
        if self._secrets is not None:
            self._secrets.look()
        path = str(self.path)
        self._stamps[path] = stamp_of(path)
        return read_text(self.path)

    def has_changed(self, *, most: int) -> bool:
        """Look at the file, at the log that it names, and at some of the secrets' files.

        Args:
            most: How many of the secrets' files; each look takes the next ones.

        Returns:
            Whether one is not as it was when it was read, or at the last look.
        """
        found = {path: stamp_of(path) for path in self._stamps or [str(self.path)]}
        has_changed = found != self._stamps
        self._stamps = found
        return (self._secrets is not None and self._secrets.look(most)) or has_changed

    def load_text(
        self, text: str, *, now: datetime | None = None, before: KeyRing | None = None
    ) -> KeyRing:
        """Return the ring that a text would give in the place of the file.

        A secret that was opened, and in whose file no look has found a change, is not opened
        again.

        Args:
            text: The text.
            now: As in :meth:`load`.
            before: The ring in force, behind which no key may go back.

        Raises:
            KeysConfigError: As :meth:`load`.
            KeyFileError: As :meth:`load`.
        """
        document = self._reader.read(self.path, text)
        self.document = document
        self._watch_log(document)
        ring = self._ring_of(document)
        if now is not None:
            self._check_past(document, ring, now, before)
        return ring

    def _watch_log(self, document: Document) -> None:
        """Look at the log of commitments from now on, as a commitment lets a key mark."""
        log = document.options.log
        heads = [] if log is None else [self.path.parent / log.folder / one for one in LOG_HEADS]
        paths = [str(self.path), *map(str, heads)]
        self._stamps = {path: self._stamps.get(path) or stamp_of(path) for path in paths}

    def _ring_of(self, document: Document) -> KeyRing:
        """Return the ring, made from the last one by what has changed."""
        last = self._last
        keys, scopes = document.edit_since(last.document)
        roster = last.roster.revised(keys, scopes)
        if roster is None or roster.sizes != (len(document.keys), len(document.scopes)):
            raise find_contradiction(document)
        records, edit = self._open(document, keys)
        try:
            index = last.index.revised(roster.patterns, edit, scopes)
            ring = self._assemble(document, records, index)
        except KeysConfigError as err:
            raise document.source.error(str(err)) from err
        self._last = _Loaded(
            document=document, roster=roster, index=index, secrets=self._secrets, records=records
        )
        return ring

    def _open(
        self, document: Document, keys: Edit[KeyEntry]
    ) -> tuple[dict[int, KeyFields], Edit[KeyFields]]:
        """Return the records by their entries, and what has changed in them.

        Opened are those of new entries, and those of which a file has changed.
        """
        last = self._last
        if self._secrets is None or not self._secrets.opens_as(document.options):
            self._secrets = Secrets(self.path.parent, document.options)
        if len(self._secrets) > len(document.keys) + _SPARE:
            self._secrets.keep(entry.reference for entry in document.keys)
        stale = self._secrets.stale
        again: Sequence[KeyEntry] = ()
        if self._secrets is not last.secrets:
            again = document.keys
        elif stale:
            again = [one for one in document.keys if one.reference in stale]
        once = {id(entry): entry for entry in (*again, *keys[1])}  # at first, all are both
        opened = _opened(self._secrets, document, once.values(), last.records)
        records = last.records | opened
        for entry in keys[0]:
            del records[id(entry)]
        gone = [last.records[id(one)] for one in (*again, *keys[0]) if id(one) in last.records]
        return records, differing(gone, list(opened.values()))

    def _assemble(
        self, document: Document, by_entry: dict[int, KeyFields], index: RingIndex
    ) -> KeyRing:
        """Return the ring of records, in the order of the file."""
        everything = list(map(by_entry.__getitem__, map(id, document.keys)))
        records = tuple([one for one in everything if type(one) is KeyRecord])
        are_all = len(records) == len(everything)
        return KeyRing(
            records,
            scopes=document.scopes,
            retired=() if are_all else tuple(one for one in everything if one.is_retired),
            uncommitted=self._uncommitted(document, records),
            index=index,
        )

    def _uncommitted(
        self, document: Document, records: tuple[KeyRecord, ...]
    ) -> frozenset[tuple[str, str]]:
        """Return the records that may not mark before their commitment is logged."""
        options = document.options
        if not options.require_commitment:
            return frozenset()
        try:
            if self._commitments is None or self._commitments.log.options != options:
                self._commitments = Commitments(KeyLog(self.path.parent, options))
            return self._commitments.missing(records)
        except CommitmentError as err:
            line = document.source.line_with("require_commitment")
            raise CommitmentError(f"{document.source.place(line)}: {err}") from err

    def _check_past(
        self, document: Document, ring: KeyRing, now: datetime, before: KeyRing | None
    ) -> None:
        """Refuse what sets back what was loaded or recorded, and what marks uncommitted."""
        found = None if before is None else find_regress(before, ring, now)
        if found is None:
            history = self._history.read()
            passed = self._passed
            is_known = passed is not None and passed[0] is history
            seen = passed[1] if passed is not None and is_known else None
            found = history.find_regress(ring, now, seen=seen)
            self._passed = (history, ring) if found is None else passed
        if found is not None:
            key_id, unit, message = found
            raise document.source.record_error(_number_of(document, key_id, unit), message, key_id)
        for record in ring.records if ring.uncommitted else ():
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


def find_contradiction(document: Document) -> KeysConfigError:
    """Return what in a file contradicts what, and where."""
    source = document.source
    if not document.keys:
        return source.error("no key is given; add a record, `watermark keys new` prints one")
    scopes = index_scopes(document.scopes)[1]
    if scopes is not None:
        return source.scope_error(*scopes, document.scopes[scopes[0]].name)
    conflict = find_conflict(
        [entry.fields for entry in document.keys],
        [entry.reference for entry in document.keys],
        [scope.name for scope in document.scopes],
    )
    if conflict is not None:
        return source.record_error(*conflict, document.keys[conflict[0]].fields.key_id)
    used = {entry.fields.scope for entry in document.keys}
    for number, scope in enumerate(document.scopes):
        if scope.name not in used:
            message = "no key has this scope; add a record with it, or remove the scope"
            return source.scope_error(number, message, scope.name)
    return source.error("the records contradict each other; report this file as a bug")


def _opened(
    secrets: Secrets,
    document: Document,
    entries: Iterable[KeyEntry],
    known: dict[int, KeyFields],
) -> dict[int, KeyFields]:
    """Return records by the `id` of their entries; the known one where its secret is the same."""
    found: dict[int, KeyFields] = {}
    for entry in entries:
        fields, before = entry.fields, known.get(id(entry))
        if fields.is_retired:
            found[id(entry)] = fields
            continue
        try:
            secret = secrets.open(entry.reference, fields.key_id)
            is_same = isinstance(before, KeyRecord) and before.secret is secret
            found[id(entry)] = before if before and is_same else KeyRecord.of(fields, secret)
        except KeysError as err:
            number = _number_of(document, fields.key_id, fields.unit)
            where = document.source.where(number, fields.key_id)
            raise type(err)(f"{where}: {err}") from err
    return found


def _number_of(document: Document, key_id: str, unit: str) -> int:
    """Return the position of a record."""
    for number, entry in enumerate(document.keys):
        if (entry.fields.key_id, entry.fields.unit) == (key_id, unit):
            return number
    return 0
