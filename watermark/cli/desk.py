"""What every command about `KEYS.toml` needs: the file, the clock, who works, and one way to edit.

Rule 1: an edit is loaded before it is written; what cannot be loaded is never on disk. Rule 2: a
secret is written before the record that names it, and taken back where the edit fails.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import pwd
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from watermark.cli import render
from watermark.errors import CommitmentError, KeysConfigError, TimestampError, WatermarkError
from watermark.keys import KeysLoader
from watermark.keys.folder import digest_of, locked, replace_text
from watermark.keys.history import HistoryReader, append_history, history_path, record_line
from watermark.keys.keylog import KeyLog, entry_of
from watermark.keys.keysfile import read_text
from watermark.keys.lifecycle import KeysText
from watermark.keys.references import Secrets
from watermark.keys.stamps import poster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from watermark.keys import KeyFields, KeyRing, SecretKey
    from watermark.keys.document import Document
    from watermark.keys.history import History

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would change, and change nothing."
)
operator_option = click.option(
    "--operator", help="Who does it, for the history.  [default: the user's name]"
)


def utc_now() -> datetime:
    """Return the time of day."""
    return datetime.now(UTC)  # noqa: TID251 - the command line reads the clock


def user_name() -> str:
    """Return the name of the user who runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


class Time(click.ParamType[datetime]):
    """A time in UTC, such as 2026-12-01T00:00:00Z, or a date for its midnight."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the time."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write it as 2026-12-01T00:00:00Z", param, ctx)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Desk:
    """One `KEYS.toml` on the table.

    Args:
        path: The file.
        operator: Who works; None for the user.
    """

    def __init__(self, path: Path, operator: str | None = None) -> None:
        self.path = path
        self.folder = path.parent
        self.operator = operator or user_name()
        self.now = utc_now()
        self.loader = KeysLoader(path)
        self._history = HistoryReader(history_path(path))
        self.text = read_text(path)

    def ring(self) -> KeyRing:
        """Return the ring as the file stands, commitments and history left aside."""
        return self.loader.load_text(self.text)

    @property
    def document(self) -> Document:
        """What the file says, once it was loaded."""
        if self.loader.document is None:
            with contextlib.suppress(CommitmentError):  # what it says is known by then
                self.ring()
        if self.loader.document is None:
            raise KeysConfigError(f"{self.path} was not read")
        return self.loader.document

    @property
    def known(self) -> list[KeyFields]:
        """The public parts of all records."""
        return [entry.fields for entry in self.document.keys]

    def records_of(self, key_id: str) -> list[KeyFields]:
        """Return the records of a key.

        Raises:
            KeysConfigError: There is none.
        """
        found = [fields for fields in self.known if fields.key_id == key_id]
        if not found:
            raise KeysConfigError(
                f"{self.path} holds no key {key_id!a}; `watermark keys list` names them"
            )
        return found

    def reference_of(self, key_id: str) -> str:
        """Return the field `secret` of a key."""
        return next(
            entry.reference for entry in self.document.keys if entry.fields.key_id == key_id
        )

    def history(self) -> History:
        """Return what is recorded."""
        return self._history.read()

    def taken(self) -> set[str]:
        """Return every key id that is in the file or was, none of which is to be used again."""
        return {one.key_id for one in self.known} | set(self.history().fingerprints)

    def log(self) -> KeyLog | None:
        """Return the log of commitments, None where the file names none."""
        options = self.document.options
        return None if options.log is None else KeyLog(self.folder, options)

    def file(self) -> KeysText:
        """Return the file as it stands."""
        return KeysText(text=self.text, known=self.known, now=self.now)

    def secrets(self, recipients: Sequence[str] = ()) -> Secrets:
        """Return what opens, makes and deletes secrets.

        Args:
            recipients: Of new age files, in the place of those in the file.
        """
        options = self.document.options
        if recipients and options.age is not None:
            age = msgspec.structs.replace(options.age, recipients=tuple(recipients))
            options = msgspec.structs.replace(options, age=age)
        return Secrets(self.folder, options)

    def only_shows(self, text: str, note: str = "nothing was changed") -> int:
        """Print what an edit would change, as a diff, and leave it at that."""
        lines = difflib.unified_diff(
            self.text.splitlines(keepends=True),
            text.splitlines(keepends=True),
            str(self.path),
            f"{self.path} (edited)",
        )
        render.write_data("".join(lines))
        render.write_note(note)
        return render.EXIT_DONE

    def apply(
        self,
        text: str,
        *,
        detail: str,
        secrets: Sequence[tuple[str, SecretKey]] = (),
        recipients: Sequence[str] = (),
        commits: bool = False,
        gap: Callable[[KeyRing], Iterable[bytes]] = lambda _ring: (),
    ) -> KeyRing:
        """Put an edit into effect: secrets, commitment, file, history, in this order.

        Args:
            text: The file's new text.
            detail: What was done, for the history.
            secrets: Secrets to make, with the references of their records.
            recipients: Of age files among them.
            commits: Whether to log the commitments of keys that are not logged.
            gap: Further log entries that the new ring needs before it may mark.

        Returns:
            The ring as it is then.
        """
        store, written = self.secrets(recipients), list[str]()
        with locked(self.folder):
            try:
                for reference, key in secrets:
                    store.store(reference, key)
                    written.append(reference)
                if commits:
                    self._commit(text, gap)
                ring = self.loader.load_text(text, now=self.now)  # before it is on disk
                replace_text(self.path, text, expected=digest_of(self.text))
            except BaseException:
                for reference in written:
                    with contextlib.suppress(WatermarkError):
                        store.remove(reference)
                raise
            self.text = text
            self.record(ring, detail)
        return ring

    def record(self, ring: KeyRing, detail: str) -> int:
        """Add to the history what is new in a ring, and return how many records are."""
        news = self.history().news(ring)
        lines = [record_line(fields, name, detail) for fields, name in news]
        append_history(history_path(self.path), lines, now=self.now, operator=self.operator)
        return len(news)

    def note(self, event: str, key_id: str, detail: str) -> None:
        """Add one other line to the history."""
        line: dict[str, object] = {"event": event, "key_id": key_id, "detail": detail}
        append_history(history_path(self.path), [line], now=self.now, operator=self.operator)

    def _commit(self, text: str, gap: Callable[[KeyRing], Iterable[bytes]]) -> None:
        """Log the commitments of a new text's keys, where it names a log."""
        ring, options = self.loader.load_text(text), self.document.options
        if options.log is None:
            return
        if options.log.signer or options.require_commitment:
            entries = [entry_of(record) for record in ring if record.secret.is_epoch_secret]
            KeyLog(self.folder, options).append([*entries, *gap(ring)])

    def send_stamps(self) -> bool:
        """Ask for the stamps that wait; whether none waits any more."""
        log, options = self.log(), self.document.options.timestamp
        if log is None or log.stamps is None or options is None:
            return True
        for size in log.stamps.waiting():
            try:
                stamp = log.stamps.send(size, poster(options))
            except TimestampError as err:
                render.write_note(f"warning: {err}")
                self.note("stamp-queued", "", f"log at {size} entries")
                return False
            self.note("stamped", "", f"log at {size} entries, at {stamp.time.isoformat()}")
            render.write_note(f"stamped the log at {size} entries: {stamp.time.isoformat()}")
        return True
