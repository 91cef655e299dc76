"""`KEYS.history.jsonl`: what became of every key, when, and by whom; lines are only added.

Rule 1: each line carries the digest of the one before, so that none can be changed or taken out
without all later ones. Rule 2: a key never goes back behind what is recorded of it, and an id
never gets other material. Rule 3: it holds no secret.

Source: `watermark/spec/key-file.md`, section "History".
"""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from watermark.errors import KeyHistoryError, KeysConfigError
from watermark.keys.foreign import Scalar
from watermark.keys.keyfile import sync_folder
from watermark.keys.record import (
    TIME_FIELDS,
    KeyFields,
    KeyRecord,
    values_of,
)
from watermark.keys.states import KeyState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from watermark.keys.keyring import KeyRing

MAX_HISTORY_BYTES: Final = 1 << 28
_FIRST: Final = "0" * 64


Plain = dict[str, str | int | float | dict[str, Scalar]]
"""A record as JSON holds it; an engine's parameters are an object."""


class HistoryLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line: a record as it stands since `time`, or what was done beside.

    Attributes:
        n: Number of the line, from 0.
        time: When it was recorded.
        operator: By whom.
        event: `record`, or what was done: `removed`, `stamp-queued`, `stamped`, `gap`.
        key_id: Which key.
        fields: The record's public part; None for another event.
        fingerprint: A public name of the material; empty where it was not at hand.
        detail: Words for people.
        prev: SHA-256 of the line before, in hex; zeros in the first.
    """

    n: int
    time: datetime
    operator: str
    event: str
    key_id: str
    fields: Plain | None = None
    fingerprint: str = ""
    detail: str = ""
    prev: str


class History:
    """What a history says.

    Attributes:
        path: The file.
        lines: Its lines.
        last: Of each key and unit, the record as last recorded.
        fingerprints: Of each key, its material.
        head: Digest of the last line, which the next one carries.
    """

    __slots__ = ("fingerprints", "head", "last", "lines", "path")

    def __init__(self, path: Path, data: bytes) -> None:
        """Read the lines.

        Raises:
            KeyHistoryError: A line is malformed, or the chain is broken.
        """
        self.path = path
        self.lines: list[HistoryLine] = []
        self.last: dict[tuple[str, str], KeyFields] = {}
        self.fingerprints: dict[str, str] = {}
        self.head = _FIRST
        if data and not data.endswith(b"\n"):
            raise self._error(data.count(b"\n") + 1, "is cut short; restore the file")
        for number, line in enumerate(data.split(b"\n")[:-1]):
            try:
                parsed = msgspec.json.decode(line, type=HistoryLine)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise self._error(number + 1, "is malformed; restore the file") from None
            if parsed.n != number or parsed.prev != self.head:
                raise self._error(number + 1, "does not follow the one before; restore the file")
            self._take(parsed, number)
            self.head = hashlib.sha256(line).hexdigest()

    def _take(self, line: HistoryLine, number: int) -> None:
        """Remember what a line says."""
        self.lines.append(line)
        if line.fingerprint:
            known = self.fingerprints.setdefault(line.key_id, line.fingerprint)
            if known != line.fingerprint:
                raise self._error(number + 1, "gives a key other material; restore the file")
        if line.fields is not None:
            try:
                known_fields = _fields_of(line.fields)
            except KeyHistoryError as err:
                raise self._error(number + 1, "holds no record; restore the file") from err
            self.last[known_fields.key_id, known_fields.unit] = known_fields
        elif line.event == "removed":
            for key in [key for key in self.last if key[0] == line.key_id]:
                del self.last[key]

    def _error(self, line: int, message: str) -> KeyHistoryError:
        return KeyHistoryError(f"{self.path}:{line}: line {message}")

    def find_regress(
        self, ring: KeyRing, now: datetime, *, seen: KeyRing | None = None
    ) -> tuple[str, str, str] | None:
        """Return the first key that a ring sets back; None where there is none.

        Args:
            ring: The ring.
            now: The instant.
            seen: A ring that was held against this history before.

        Returns:
            Key id, unit, and a message with the remedy.
        """
        if not self.lines:
            return None
        news = ring.edit_since(seen)[0][1] if seen else (*ring.records, *ring.retired)
        for one in news:
            known = self.last.get((one.key_id, one.unit))
            message = "" if known is None else one.regress_from(known, now)
            if message:
                return one.key_id, one.unit, message
        for record in (one for one in news if isinstance(one, KeyRecord)):
            name = self.fingerprints.get(record.key_id)
            if name and not record.secret.is_context_only and record.secret.fingerprint != name:
                message = (
                    f"key {record.key_id!a} was recorded with other material; one id has one "
                    "secret for ever, so choose another id, or restore the old key file"
                )
                return record.key_id, record.unit, message
        return None

    def news(self, ring: KeyRing) -> list[tuple[KeyFields, str]]:
        """Return the records that are not recorded as they stand, with their fingerprints."""
        found: list[tuple[KeyFields, str]] = []
        for record in ring.records:
            if self.last.get((record.key_id, record.unit)) != record.public:
                name = "" if record.secret.is_context_only else record.secret.fingerprint
                found.append((record.public, name))
        found += [(one, "") for one in ring.retired if self.last.get((one.key_id, one.unit)) != one]
        return found


class HistoryReader:
    """Reads a history, and again only once it has changed.

    Args:
        path: The file; an absent one is an empty history.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[tuple[int, int, int], History] | None = None

    def read(self) -> History:
        """Return the history as it stands.

        Raises:
            KeyHistoryError: It cannot be read, is malformed, or its chain is broken.
        """
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._known is not None and self._known[0] == stamp:
                    return self._known[1]
                data = file.read(MAX_HISTORY_BYTES)
        except FileNotFoundError:
            return History(self._path, b"")
        except OSError as err:
            raise KeyHistoryError(f"cannot read {self._path}; check its permissions") from err
        history = History(self._path, data)
        self._known = (stamp, history)
        return history


def history_path(keys_path: Path) -> Path:
    """Return where the history of a `KEYS.toml` lies: beside it."""
    return keys_path.with_name(f"{keys_path.stem}.history.jsonl")


def record_line(record: KeyFields, fingerprint: str, detail: str = "") -> dict[str, object]:
    """Return what a line says of a record."""
    return {
        "event": "record",
        "key_id": record.key_id,
        "fields": _plain(record),
        "fingerprint": fingerprint,
        "detail": detail,
    }


def append_history(
    path: Path, lines: Sequence[dict[str, object]], *, now: datetime, operator: str
) -> None:
    """Add lines to a history, durably.

    Args:
        path: The file, made where there is none.
        lines: From `record_line`, or `event`, `key_id` and `detail`.
        now: When.
        operator: By whom.

    Raises:
        KeyHistoryError: It is damaged, or cannot be written.
    """
    if not lines:
        return
    history = HistoryReader(path).read()
    head, number = history.head, len(history.lines)
    data = b""
    for values in lines:
        parts = {"n": number, "time": now, "operator": operator, **values, "prev": head}
        line = msgspec.json.encode(msgspec.convert(parts, HistoryLine))
        data += line + b"\n"
        head, number = hashlib.sha256(line).hexdigest(), number + 1
    try:
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as err:
        raise KeyHistoryError(f"cannot write {path}; check its permissions and the disk") from err
    if is_new:
        sync_folder(path)


def _plain(record: KeyFields) -> Plain:
    """Return a record as JSON holds it, what is not set left out."""
    values = values_of(record).items()
    return {name: _json_of(value) for name, value in values if value is not None and value != ()}


def _json_of(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, KeyState):
        return value.value
    if isinstance(value, tuple):
        return dict(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _fields_of(plain: Plain) -> KeyFields:
    """Return the record that a line holds.

    Raises:
        KeyHistoryError: It holds none.
    """
    values: dict[str, Any] = dict(plain)
    try:
        values["state"] = KeyState(values["state"])
        values["parameters"] = tuple(sorted(dict(values.get("parameters", {})).items()))
        for name in values.keys() & set(TIME_FIELDS):
            values[name] = datetime.fromisoformat(values[name])
        return KeyFields(**values)
    except (KeyError, TypeError, ValueError, KeysConfigError) as err:
        raise KeyHistoryError("it holds no record") from err
