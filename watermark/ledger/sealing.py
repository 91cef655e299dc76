"""Sealing: closed files become a segment; a segment goes to the log of keys and to the store.

Rule 1: a file is sealed once: its sequence is in the signed header before it is removed. Rule 2:
what is sealed waits on this machine until the store has it and shows it back. Rule 3: each step can
be interrupted and done again. Rule 4: what is missing is in the header: files that were taken away,
that are damaged, or whose writer did not close them.

Source: `watermark/spec/ledger.md`, Sealing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from watermark.errors import LedgerFileError, SegmentError
from watermark.keys.folder import locked, write_synced
from watermark.keys.keyfile import sync_folder
from watermark.ledger.arrow import SegmentWriter
from watermark.ledger.files import FileName, files_in, is_live, move_file, open_rows, remove_file
from watermark.ledger.headers import (
    NO_DIGEST,
    Header,
    SealedFile,
    SignedHeader,
    check_next,
    open_header,
    sign_header,
)
from watermark.ledger.rows import Gap, Kind, Row, gap_of
from watermark.ledger.store import SegmentStore, header_name, segment_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from watermark.keys.keylog import KeyLog
    from watermark.ledger.settings import LedgerSettings
    from watermark.log import NoteSigner

_BATCH_ROWS: Final = 4096
_DRAFT: Final = ".segment.draft"
_DAMAGED: Final = "file-damaged"
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What one round did.

    Attributes:
        segment: The segment that was sealed; None where nothing was to be.
        waiting: Segments that wait for the store.
        problem: Why they wait; empty where none does.
    """

    segment: Header | None
    waiting: int
    problem: str


@dataclass(slots=True)
class _Tally:
    """What a segment's header says of its rows."""

    kinds: dict[int, int] = field(default_factory=dict)
    since_us: int = 0
    until_us: int = 0
    files: list[SealedFile] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.kinds[row.kind] = self.kinds.get(row.kind, 0) + 1
            self.since_us = min(self.since_us or row.at_us, row.at_us)
            self.until_us = max(self.until_us, row.at_us)
            if row.kind == Kind.GAP:
                self.gaps.append(gap_of(row))


class Sealer:
    """Seals the files of one node.

    Args:
        settings: What `LEDGER.toml` says; it names a store.
        node: The node.
        signer: Signs the headers.
        key_log: Takes the roots; None for none.
    """

    def __init__(
        self, settings: LedgerSettings, *, node: str, signer: NoteSigner, key_log: KeyLog | None
    ) -> None:
        self._settings = settings
        self._node = node
        self._signer = signer
        self._key_log = key_log
        self._folder = settings.rows
        self._headers = settings.rows / "headers"
        self._outbox = settings.rows / "outbox"
        self._store = SegmentStore(settings.store)

    def run(self, now_us: int) -> Sealed | None:
        """Seal what is closed, and send what waits.

        Args:
            now_us: Microseconds since 1970.

        Returns:
            What was done; None where another process is at it.

        Raises:
            LedgerFileError: The folder cannot be written.
            LedgerUnavailableError: Another process reads a file just now.
            SegmentError: The headers on this machine do not hold together.
            CommitmentError: The log of keys cannot be used.
        """
        for folder in (self._headers, self._outbox):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(self._folder) as is_alone:
            if not is_alone:
                return None
            last = self._last()
            self._tidy_up(last)
            segment = self._seal(last, now_us)
            problem = self._send()
            waiting = len(self._waiting())
        return Sealed(
            segment=None if segment is None else segment.header, waiting=waiting, problem=problem
        )

    def _last(self) -> SignedHeader | None:
        """Return the last header: this machine's, or the store's where this machine has none."""
        last: SignedHeader | None = None
        for path in sorted(
            [*self._headers.glob("*.header"), *self._outbox.glob("*.header")],
            key=lambda path: path.name,
        ):
            header = open_header(path.read_bytes(), self._settings.verifier)
            if last is not None:
                check_next(last, header)
            last = header
        if last is None and self._node in self._store.nodes():
            for last in self._store.headers(self._node, self._settings.verifier):
                path = self._headers / header_name(last.header.number)
                write_synced(path, last.note, 0o600)
        return last

    def _tidy_up(self, last: SignedHeader | None) -> None:
        """Remove what a round that was interrupted had sealed already."""
        for draft in self._outbox.glob(f"*{_DRAFT}"):
            draft.unlink()
        heads = {} if last is None else last.header.heads
        for name in files_in(self._folder):
            is_ours = name.node == self._node
            if is_ours and name.sequence <= heads.get(str(name.worker), 0):
                self._clear(name, last)

    def _seal(self, last: SignedHeader | None, now_us: int) -> SignedHeader | None:
        heads = dict({} if last is None else last.header.heads)
        tally = _Tally()
        names = self._closed(heads, tally)
        expired = self._expired(now_us)
        if not names and expired == (0 if last is None else last.header.expired):
            return None
        draft = self._outbox / f"{now_us}{_DRAFT}"
        root = self._write(draft, names, tally)
        for name in names:
            heads[str(name.worker)] = name.sequence
        digest = _digest_of(draft)
        header = Header(
            node=self._node,
            number=1 if last is None else last.header.number + 1,
            previous=NO_DIGEST if last is None else last.digest,
            segment=digest,
            n_bytes=draft.stat().st_size,
            root=root.hex(),
            rows=sum(tally.kinds.values()),
            begins=tally.kinds.get(Kind.BEGIN, 0),
            ends=tally.kinds.get(Kind.END, 0),
            since_us=tally.since_us,
            until_us=tally.until_us,
            sealed_us=now_us,
            files=tuple(tally.files),
            heads=heads,
            gaps=tuple(tally.gaps),
            expired=expired,
        )
        return self._commit(sign_header(header, self._signer), draft, names)

    def _closed(self, heads: dict[str, int], tally: _Tally) -> list[FileName]:
        """Return the files to seal, and say which are missing before them."""
        names: list[FileName] = []
        by_worker: dict[int, list[FileName]] = {}
        for name in files_in(self._folder):
            if name.node == self._node:
                by_worker.setdefault(name.worker, []).append(name)
        for worker, files in by_worker.items():
            expected = heads.get(str(worker), 0) + 1
            for name in files:
                if is_live(self._folder / str(name)):
                    break
                for missing in range(expected, name.sequence):
                    gone = str(FileName(self._node, worker, missing))
                    tally.gaps.append(Gap(cause="file-missing", file=gone))
                names.append(name)
                expected = name.sequence + 1
        return names

    def _write(self, draft: Path, names: Sequence[FileName], tally: _Tally) -> bytes:
        """Write the segment; return the root."""
        writer = SegmentWriter(draft, self._node)
        try:
            for name in names:
                self._add(writer, name, tally)
        finally:
            root = writer.close()
        descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return root

    def _add(self, writer: SegmentWriter, name: FileName, tally: _Tally) -> None:
        """Add one file's rows; what is wrong with it is a gap."""
        path = self._folder / str(name)
        n_rows, cause = 0, _DAMAGED
        try:
            with open_rows(path) as reader:
                for rows in reader.batches(_BATCH_ROWS):
                    writer.add(name.worker, name.sequence, rows)
                    tally.add(rows)
                n_rows = reader.n_rows
                is_good = reader.is_whole
                cause = (
                    "" if is_good and reader.is_closed else "file-not-closed" if is_good else cause
                )
        except LedgerFileError:
            pass  # the gap says it
        tally.files.append(SealedFile(worker=name.worker, sequence=name.sequence, rows=n_rows))
        if cause:
            tally.gaps.append(Gap(cause=cause, file=path.name))

    def _clear(self, name: FileName, sealed: SignedHeader | None) -> None:
        """Remove a file that is sealed; keep a damaged one for whoever can read more of it."""
        path = self._folder / str(name)
        gaps = () if sealed is None else sealed.header.gaps
        if any((gap.cause, gap.file) == (_DAMAGED, path.name) for gap in gaps):
            folder = self._folder / "damaged"
            folder.mkdir(mode=0o700, exist_ok=True)
            move_file(path, folder)
        else:
            remove_file(path)

    def _commit(self, signed: SignedHeader, draft: Path, names: Sequence[FileName]) -> SignedHeader:
        """Put segment and header into the outbox, then remove the files."""
        segment = self._outbox / segment_name(signed.header.segment)
        draft.replace(segment)
        path = self._outbox / header_name(signed.header.number)
        unsealed = path.with_suffix(_DRAFT)
        write_synced(unsealed, signed.note, 0o600)
        unsealed.replace(path)  # sealed from here on
        sync_folder(path)
        for name in names:
            self._clear(name, signed)
        return signed

    def _waiting(self) -> list[Path]:
        return sorted(self._outbox.glob("*.header"))

    def _send(self) -> str:
        """Log and store what waits, in order; return what is in the way, empty for nothing."""
        try:
            for path in self._waiting():
                signed = open_header(path.read_bytes(), self._settings.verifier)
                if self._key_log is not None:
                    with locked(self._key_log.folder.parent):
                        self._key_log.append([signed.entry()])
                self._store_one(path, signed)
        except SegmentError as err:
            return str(err)
        return ""

    def _store_one(self, path: Path, signed: SignedHeader) -> None:
        header = signed.header
        segment = self._outbox / segment_name(header.segment)
        self._store.keep(self._node, segment.name, segment, header.segment)
        self._store.keep(self._node, path.name, path, signed.digest)
        self._expire(header)
        path.replace(self._headers / path.name)
        sync_folder(self._headers / path.name)
        segment.unlink(missing_ok=True)

    def _expired(self, now_us: int) -> int:
        """Return the number of the last segment that is older than it may be."""
        days = self._settings.retention_days
        if not days:
            return 0
        last = 0
        for header in self._kept():
            if (header.until_us or header.sealed_us) >= now_us - days * _DAY_US:
                break
            last = header.number if header.rows else last
        return last

    def _expire(self, header: Header) -> None:
        """Remove the segments that a header says are too old; the headers stay."""
        for old in self._kept():
            if old.number <= header.expired:
                self._store.remove(self._node, segment_name(old.segment))

    def _kept(self) -> Iterator[Header]:
        for path in sorted(self._headers.glob("*.header")):
            yield open_header(path.read_bytes(), self._settings.verifier).header


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Yield whether nobody else seals here, and keep it so."""
    descriptor = os.open(folder / "sealing.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
