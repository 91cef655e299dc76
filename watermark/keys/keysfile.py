"""`KEYS.toml`: the one file that an operator edits to add, rotate or retire a key.

Rule 1: it names secrets, and never holds one. Rule 2: it is taken whole or refused whole, and
what was taken before stays as it is. Rule 3: a message names the file, the record and its line,
and quotes no value of the `secret` field.

Source: `watermark/spec/key-file.md`, section "KEYS.toml".
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from watermark.errors import CommitmentError, KeysConfigError, KeysError
from watermark.keys.document import KEYS_SCHEMA, DocumentReader
from watermark.keys.history import History, HistoryReader, history_path
from watermark.keys.keylog import KeyLog, entry_of
from watermark.keys.keyring import KeyRing, find_conflict
from watermark.keys.record import (
    DEFAULT_ACCOUNT_SHARE_Q16,
    DEFAULT_CONTEXT_WIDTH,
    DEFAULT_RHO,
    DEFAULT_SCHEME,
    DEFAULT_SCOPE,
    KeyFields,
    KeyRecord,
    KeyState,
    format_time,
)
from watermark.keys.references import Secrets
from watermark.keys.scope import Pattern, Scope, index_scopes
from watermark.keys.secret import check_key_id

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import datetime
    from pathlib import Path

    from watermark.keys.document import Document, KeyEntry
    from watermark.keys.secret import SecretKey

KEYS_HEADER: Final = f"schema = {KEYS_SCHEMA}\n"
MAX_KEYS_BYTES: Final = 1 << 24  # some 50,000 records

_FILE_PREFIX: Final = "file:"
_OTHERS_WRITE: Final = 0o002


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


def format_record(
    *,
    key_id: str,
    unit: str,
    secret: str,
    context_width: int = DEFAULT_CONTEXT_WIDTH,
    scheme: str = DEFAULT_SCHEME,
    rho: float = DEFAULT_RHO,
    account_share_q16: int = DEFAULT_ACCOUNT_SHARE_Q16,
    state: KeyState = KeyState.MARKING,
    scope: str = DEFAULT_SCOPE,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    compromised_at: datetime | None = None,
    disclosed_at: datetime | None = None,
) -> str:
    """Return one record as TOML, ready to append to a file that begins with `KEYS_HEADER`.

    Args:
        key_id: Name of the epoch key.
        unit: What a token is: `words/v1`, or `tokenizer:sha256:` and a digest in hex.
        secret: Path of the key file, absolute or relative to `KEYS.toml`, without `file:`.
        context_width: Tokens before the position that seed it, 1..4.
        scheme: Name of the sampling scheme.
        rho: Correlation of the copula, 0 to 1.
        account_share_q16: Share of the positions, in 65536ths, that carry the account.
        state: What the record says of itself; left out where dates tell it.
        scope: Which requests it marks; left out where it is `default`.
        not_before: It marks from this instant on.
        not_after: It marks before this instant.
        compromised_at: Since when others may know the secret.
        disclosed_at: Since when its context subkey is public.

    Returns:
        A `[[key]]` table, ending in a newline.

    Raises:
        KeysError: The key id is malformed.
        KeysConfigError: A value is outside its range, or the path is empty.
    """
    check_key_id(key_id)
    if not secret or secret.startswith(_FILE_PREFIX):
        raise KeysConfigError("the secret's path is empty or has a scheme; give a bare file path")
    fields = KeyFields(
        key_id=key_id,
        unit=unit,
        context_width=context_width,
        scheme=scheme,
        rho=rho,
        account_share_q16=account_share_q16,
        state=state,
        scope=scope,
        not_before=not_before,
        not_after=not_after,
        compromised_at=compromised_at,
        disclosed_at=disclosed_at,
    )
    return format_fields(fields, _FILE_PREFIX + secret)


def format_fields(fields: KeyFields, reference: str) -> str:
    """Return a record as TOML.

    Args:
        fields: Its public part.
        reference: The field `secret`.
    """
    values = {
        "id": _toml_string(fields.key_id),
        "unit": _toml_string(fields.unit),
        "context_width": str(fields.context_width),
        "scheme": _toml_string(fields.scheme),
        "rho": repr(float(fields.rho)),
        "account_share_q16": str(fields.account_share_q16),
        "secret": _toml_string(reference),
    }
    if fields.scope != DEFAULT_SCOPE:
        values["scope"] = _toml_string(fields.scope)
    for name in ("not_before", "not_after", "compromised_at", "disclosed_at"):
        moment = getattr(fields, name)
        if moment is not None:
            values[name] = format_time(moment)
    if fields.state is not KeyState.MARKING or not fields.is_dated:
        values["state"] = _toml_string(fields.state.value)
    return "[[key]]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def read_text(path: Path) -> str:
    """Return the text of a `KEYS.toml`, read in one piece.

    Raises:
        KeysConfigError: It cannot be read, changed meanwhile, is too long or not UTF-8, or
            everybody may write it.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            data = file.read(MAX_KEYS_BYTES + 1)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise KeysConfigError(
            f"cannot read {path}: {reason[:1].lower()}{reason[1:]}; correct the path, "
            "`watermark keys new` prints a first record"
        ) from err
    if len(data) > MAX_KEYS_BYTES:
        raise KeysConfigError(
            f"{path}:1: the file is longer than {MAX_KEYS_BYTES} bytes; remove retired keys"
        )
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise KeysConfigError(
            f"{path}:1: the file changed while it was read; write another and rename it"
        )
    if after.st_mode & _OTHERS_WRITE:
        raise KeysConfigError(f"{path}:1: everybody may write the file; run chmod o-w on it")
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
    raise KeysConfigError(f"{path}:{line}: the file is not UTF-8; save it as UTF-8")


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
        return KeyRecord(
            key_id=fields.key_id,
            unit=fields.unit,
            context_width=fields.context_width,
            scheme=fields.scheme,
            rho=fields.rho,
            account_share_q16=fields.account_share_q16,
            state=fields.state,
            scope=fields.scope,
            not_before=fields.not_before,
            not_after=fields.not_after,
            compromised_at=fields.compromised_at,
            disclosed_at=fields.disclosed_at,
            secret=secret,
        )
    except KeysConfigError as err:
        raise document.source.record_error(number, str(err), fields.key_id) from err


def _number_of(document: Document, key_id: str, unit: str) -> int:
    """Return the position of a record."""
    for number, entry in enumerate(document.keys):
        if (entry.fields.key_id, entry.fields.unit) == (key_id, unit):
            return number
    return 0


def _toml_string(text: str) -> str:
    """Return `text` as a TOML basic string, whose escapes are JSON's and one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
