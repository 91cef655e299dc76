"""The log of commitments beside a `KEYS.toml`: what is in it, and adding to it.

Rule 1: what is not under the signed checkpoint is not committed. Rule 2: who only checks needs
the public key and the folder; who commits needs the signing key as well.

Source: `watermark/spec/commitment.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from watermark.errors import CommitmentError, KeyFileError, LogError, LogFormatError
from watermark.keys.commitment import commitment_root, gap_key_id, key_entry
from watermark.keys.edit import differing
from watermark.keys.folder import FolderStorage
from watermark.keys.keyfile import read_private_file, write_private_file
from watermark.keys.stamps import Stamps
from watermark.log import CHECKPOINT_PATH, Log, LogReader, NoteSigner, NoteVerifier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from watermark.keys.document import Options
    from watermark.keys.record import (
        KeyRecord,
    )
    from watermark.keys.stamps import VerifiedStamp
    from watermark.log import TlogProof, VerifiedCheckpoint

MAX_SIGNER_BYTES: Final = 1024
LOG_HEADS: Final = (CHECKPOINT_PATH, "stamps")
"""What in a log's folder changes with everything that is added to it."""
_FILE_PREFIX: Final = "file:"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedKeys:
    """What a log holds, as its checkpoint has it.

    Attributes:
        reader: The log.
        index: Where each entry is, the first of equal ones.
        gaps: Keys that mark before their stamps by an entry that says so.
        stamped: Entries before this index are under a verified stamp.
        stamps: The stamps that hold.
    """

    reader: LogReader
    index: dict[bytes, int]
    gaps: frozenset[str]
    stamped: int
    stamps: tuple[VerifiedStamp, ...]

    def is_committed(self, entry: bytes, key_id: str, *, needs_stamp: bool) -> bool:
        """Whether a key with this entry may mark."""
        place = self.index.get(entry)
        if place is None:
            return False
        return not needs_stamp or place < self.stamped or key_id in self.gaps


class KeyLog:
    """The log of a `KEYS.toml`.

    Args:
        keys_folder: The folder of the file.
        options: What stands in it.

    Raises:
        CommitmentError: The file names no log, or its parts are malformed.
    """

    def __init__(self, keys_folder: Path, options: Options) -> None:
        if options.log is None:
            raise CommitmentError(
                "KEYS.toml names no log; `watermark keys commit --create-log NAME` makes one"
            )
        try:
            self.verifier = NoteVerifier.parse(options.log.verifier)
        except LogFormatError as err:
            raise CommitmentError(f"[log] verifier is malformed: {err}; restore it") from err
        self.options = options
        self.folder = keys_folder / options.log.folder
        self.storage = FolderStorage(self.folder)
        self._keys_folder = keys_folder
        self._known: tuple[bytes | None, LoggedKeys] | None = None
        self.stamps: Stamps | None = None
        if options.timestamp is not None:
            roots = keys_folder / options.timestamp.roots.removeprefix(_FILE_PREFIX)
            try:
                self.stamps = Stamps(self.folder, self.verifier, roots.read_bytes())
            except OSError as err:
                raise CommitmentError(
                    f"cannot read {roots}; [timestamp] roots names the authority's certificate"
                ) from err

    def read(self) -> LoggedKeys:
        """Return what the log holds; of a log that has grown, only what is new is read.

        Raises:
            CommitmentError: The log is missing, damaged, not signed by its key, or does not extend
                what it was when it was read before.
        """
        try:
            note = self.storage.read(CHECKPOINT_PATH)
            known = None if self._known is None else self._known[1]
            if self._known is not None and note is not None and self._known[0] == note:
                return self._restamped(self._known[1])
            reader = LogReader.open(self.storage, self.verifier.name, [self.verifier])
            logged = _read_on(reader, known)
        except LogError as err:
            raise CommitmentError(f"log {self.folder} cannot be used: {err}") from err
        self._known = (note, logged)
        return self._restamped(logged)

    def _restamped(self, logged: LoggedKeys) -> LoggedKeys:
        """Return the same with the stamps as they lie there now."""
        if self.stamps is None:
            return logged
        stamps = tuple(self.stamps.verified(logged.reader))
        return LoggedKeys(
            reader=logged.reader,
            index=logged.index,
            gaps=logged.gaps,
            stamped=max((stamp.size for stamp in stamps), default=0),
            stamps=stamps,
        )

    def append(self, entries: Sequence[bytes]) -> VerifiedCheckpoint:
        """Add the entries that the log does not hold, sign, and queue a stamp where one is due.

        The caller holds the folder's lock.

        Args:
            entries: From `key_entry` and its like.

        Returns:
            The checkpoint that is over all of them.

        Raises:
            CommitmentError: The log or its signing key cannot be used.
            KeyFileError: The signing key's file is missing or too open.
        """
        try:
            log = Log.open(self.storage, self._signer())
            known = set(LogReader(self.storage, log.checkpoint).entries())
            missing = [entry for entry in dict.fromkeys(entries) if entry not in known]
            if missing:
                log.extend(missing)
                log.publish()
        except LogError as err:
            raise CommitmentError(f"log {self.folder} cannot be used: {err}") from err
        if self.stamps is not None:
            self.stamps.queue(log.checkpoint)
        return log.checkpoint

    def prove(self, entry: bytes) -> TlogProof:
        """Return the proof that an entry is in the log, with a stamp where there is one.

        Raises:
            CommitmentError: It is not, or the log cannot be used.
        """
        logged = self.read()
        place = logged.index.get(entry)
        if place is None:
            raise CommitmentError("this commitment is not logged; run `watermark keys commit`")
        try:
            best = None if self.stamps is None else self.stamps.best(logged.reader, place)
            reader, stamp = (logged.reader, b"") if best is None else best
            return replace(reader.prove_inclusion(place), extra=stamp)
        except LogError as err:
            raise CommitmentError(f"log {self.folder} cannot be used: {err}") from err

    def _signer(self) -> NoteSigner:
        reference = "" if self.options.log is None else self.options.log.signer
        if not reference.startswith(_FILE_PREFIX):
            raise CommitmentError(
                '[log] has no signer = "file:PATH"; commit where the signing key is kept'
            )
        path = self._keys_folder / reference.removeprefix(_FILE_PREFIX)
        data = read_private_file(path, limit=MAX_SIGNER_BYTES, what="log signing key")
        try:
            signer = NoteSigner.parse(data.decode("utf-8", "replace").strip())
        except LogFormatError:
            raise KeyFileError(f"{path} holds no signing key of a log; restore it") from None
        if signer.verifier != self.verifier:
            raise CommitmentError(f"{path} is not the key that [log] verifier names; restore it")
        return signer


def create_log(keys_folder: Path, name: str, seed: bytes) -> str:
    """Make a log beside a `KEYS.toml`, with a signing key of its own.

    Args:
        keys_folder: Where: the log goes to `log/`, its key to `log.key`.
        name: The log's name, best a URL without its scheme.
        seed: 32 bytes from a cryptographic source.

    Returns:
        The `[log]` table for the file.

    Raises:
        CommitmentError: The name is malformed, or there is a log already.
        KeyFileError: The signing key cannot be written.
    """
    try:
        signer = NoteSigner(name, seed)
        storage = FolderStorage(keys_folder / "log")
        if storage.read(CHECKPOINT_PATH) is not None:
            raise CommitmentError(f"{keys_folder / 'log'} holds a log already; name it in [log]")
        write_private_file(keys_folder / "log.key", f"{signer.reveal()}\n".encode())
        Log.create(storage, signer)
    except LogError as err:
        raise CommitmentError(f"cannot make a log: {err}") from err
    return f'[log]\nfolder = "log"\nsigner = "file:log.key"\nverifier = "{signer.verifier}"\n'


def entry_of(record: KeyRecord) -> bytes:
    """Return the log entry that commits to a record.

    Raises:
        KeysError: The record holds a disclosed subkey only, or its id cannot stand in a line.
    """
    return key_entry(record, commitment_root(record.secret))


def _read_on(reader: LogReader, known: LoggedKeys | None) -> LoggedKeys:
    """Return what a log holds that extends what was read of it before.

    Raises:
        LogForkError: It does not extend that.
        LogError: It is damaged.
    """
    index: dict[bytes, int] = {}
    gaps: set[str] = set()
    start = 0
    if known is not None:
        reader.prove_consistency(known.reader.checkpoint.checkpoint)
        index, gaps = dict(known.index), set(known.gaps)
        start = known.reader.checkpoint.size
    for number, entry in enumerate(reader.entries(start), start=start):
        index.setdefault(entry, number)
        gap = gap_key_id(entry)
        if gap is not None:
            gaps.add(gap)
    return LoggedKeys(reader=reader, index=index, gaps=frozenset(gaps), stamped=0, stamps=())


class Commitments:
    """Which keys a log has committed to; of each the entry is made once.

    Args:
        log: The log.
    """

    def __init__(self, log: KeyLog) -> None:
        self.log = log
        self._records: Sequence[KeyRecord] = ()
        self._entries: dict[int, tuple[KeyRecord, bytes]] = {}  # by `id` of their records
        self._missing: set[int] = set()
        self._stamped = 0

    def missing(self, records: Sequence[KeyRecord]) -> frozenset[tuple[str, str]]:
        """Return the key ids and units of the records that may not mark yet.

        A log is only added to, so that what it was shown to hold is not looked for again, as
        long as no stamp is taken away.

        Raises:
            CommitmentError: The log cannot be used.
        """
        logged, needs_stamp = self.log.read(), self.log.options.require_timestamp
        gone, come = differing(self._records, records)
        entries = self._entries.copy()
        for one in gone:
            entries.pop(id(one), None)
        new = {id(one): (one, entry_of(one)) for one in come if one.secret.is_epoch_secret}
        entries |= new
        is_less = logged.stamped < self._stamped
        asked = entries.keys() if is_less else (self._missing & entries.keys()) | new.keys()
        missing = set()
        for name in asked:
            record, entry = entries[name]
            if not logged.is_committed(entry, record.key_id, needs_stamp=needs_stamp):
                missing.add(name)
        self._records, self._entries, self._missing = records, entries, missing
        self._stamped = logged.stamped
        return frozenset(
            (record.key_id, record.unit) for record, _ in map(entries.__getitem__, missing)
        )
