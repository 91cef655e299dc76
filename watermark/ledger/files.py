"""One file of rows: SQLite, written by one connection, durable commit by commit.

Rule 1: a row is there when `append` returned; the log ahead of the file is synced at every commit
(WAL, synchronous=FULL). Rule 2: SQLite ignores an error of its own checkpoints, so they are ours:
after any error the file is abandoned as it lies, because a failed sync that is tried again may
seem to succeed with the data gone. Rule 3: the connection holds the file's lock for as long as it
lives, so that who can open a file knows that its writer has ended, however it ended.

Source: sqlite.org/wal.html; sqlite.org/lockingv3.html; `watermark/spec/ledger.md`, Files.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import apsw

from watermark.errors import LedgerConfigError, LedgerFileError, LedgerUnavailableError
from watermark.keys.keyfile import sync_folder
from watermark.ledger.rows import COLUMNS, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SUFFIX: Final = ".ledger"
MIN_SQLITE: Final = (3, 51, 3)  # older ones may lose a commit when a WAL is reset
APPLICATION_ID: Final = 0x574D4C31  # "WML1"
CHECKPOINT_BYTES: Final = 16 << 20
PAGE_BYTES: Final = 32768  # twelve rows of 300 contexts: few pages are half empty
_FRAME_HEADER_BYTES: Final = 24
_BATCH_ROWS: Final = 1000
_PARTS: Final = ("-wal", "-shm", "")
_NAME: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]{0,62})_(\d{1,5})_(\d{1,12})\.ledger")
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")

_TABLES: Final = """
CREATE TABLE rows (
  seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, at_us INTEGER NOT NULL, reply BLOB,
  account BLOB, conversation BLOB, key_id TEXT, unit TEXT, tokenizer TEXT, model TEXT,
  path TEXT, keeps TEXT, outcome TEXT, n_tokens INTEGER, n_bytes INTEGER, digest BLOB,
  contents BLOB
) STRICT;
CREATE TABLE closed (at_us INTEGER NOT NULL) STRICT;
"""
_VALUES: Final = f"({', '.join('?' * len(COLUMNS))})"
_AT_ONCE: Final = 64  # rows a statement: each lets other threads run once, and waits for its turn
_INSERT: Final = {
    count: f"INSERT INTO rows VALUES {', '.join([_VALUES] * count)}"  # noqa: S608 - no value
    for count in (1, _AT_ONCE)
}
_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM rows ORDER BY seq"  # noqa: S608 - our columns


def check_sqlite(version: str) -> None:
    """Refuse a SQLite that is known to lose rows.

    Raises:
        LedgerConfigError: It is too old.
    """
    if tuple(map(int, version.split(".")[:3])) < MIN_SQLITE:
        wanted = ".".join(map(str, MIN_SQLITE))
        raise LedgerConfigError(
            f"SQLite {version} may lose rows; install apsw {wanted} or later, which brings its own"
        )


@dataclass(frozen=True, slots=True, order=True)
class FileName:
    """Who wrote a file, and which of that worker's it is.

    Attributes:
        node: The machine, of letters, digits, '.' and '-'.
        worker: The worker's place among those of the machine.
        sequence: Counts the files of that place, from 1.
    """

    node: str
    worker: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.node}_{self.worker}_{self.sequence}{SUFFIX}"

    @classmethod
    def parse(cls, text: str) -> FileName | None:
        """Return the name that a file's name stands for, None where it is another file."""
        found = _NAME.fullmatch(text)
        return None if found is None else cls(found[1], int(found[2]), int(found[3]))


def check_node(node: str) -> str:
    """Return a node's name if it can stand in a file's.

    Raises:
        LedgerConfigError: It cannot.
    """
    if _NODE.fullmatch(node) is None:
        raise LedgerConfigError(
            f"node {node!a} is no name; use up to 63 letters, digits, '.' and '-'"
        )
    return node


def files_in(folder: Path) -> list[FileName]:
    """Return the files of rows in a folder, by node, worker and sequence."""
    return sorted(filter(None, (FileName.parse(path.name) for path in folder.iterdir())))


class LedgerFile:
    """A file that is being written.

    Args:
        path: The file; there must be none.
        vfs: SQLite's name of the file system; None for the machine's.
        checkpoint_bytes: How far the log ahead of the file may grow.

    Raises:
        LedgerFileError: It cannot be made.
    """

    def __init__(
        self, path: Path, *, vfs: str | None = None, checkpoint_bytes: int = CHECKPOINT_BYTES
    ) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self.path = path
        self.n_rows = 0
        self._checkpoint_frames = checkpoint_bytes // (PAGE_BYTES + _FRAME_HEADER_BYTES)
        self._frames = 0
        try:
            if vfs is None:  # nobody else may read it, from its first byte on
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._db = _connect(path, vfs)
        except (apsw.Error, OSError) as err:
            raise _file_error("cannot make", path, err) from err
        try:
            self._prepare()
            if vfs is None:
                sync_folder(path)
        except (apsw.Error, OSError) as err:
            self.abandon()
            raise _file_error("cannot make", path, err) from err

    def _prepare(self) -> None:
        """Make the tables; the lock is held from here on."""
        db = self._db
        db.execute(f"PRAGMA page_size={PAGE_BYTES}; PRAGMA locking_mode=EXCLUSIVE")
        if db.execute("PRAGMA journal_mode=WAL").get != "wal":
            raise LedgerFileError(f"{self.path} is on a file system without WAL; move the ledger")
        db.execute("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0")
        db.execute(f"BEGIN; PRAGMA application_id={APPLICATION_ID}; {_TABLES} COMMIT")
        self._db.set_wal_hook(self._on_commit)  # the pragma has put SQLite's own in its place

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows, numbered in order; they are durable when this returns.

        Raises:
            LedgerFileError: They may be there or not; `abandon` the file.
        """
        numbered = [(seq, *row[1:]) for seq, row in enumerate(rows, start=self.n_rows + 1)]
        whole = len(rows) - len(rows) % _AT_ONCE
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for start in range(0, whole, _AT_ONCE):
                values = itertools.chain.from_iterable(numbered[start : start + _AT_ONCE])
                self._db.execute(_INSERT[_AT_ONCE], tuple(values))
            self._db.executemany(_INSERT[1], numbered[whole:])
            self._db.execute("COMMIT")
            self.n_rows += len(rows)
            if self._frames >= self._checkpoint_frames:
                self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.Error, OSError) as err:
            raise _file_error("cannot write", self.path, err) from err

    def close(self, at_us: int) -> None:
        """Say that nothing is missing at the end, and let the file go.

        Raises:
            LedgerFileError: That could not be written; all rows are there.
        """
        try:
            self._db.execute("INSERT INTO closed VALUES (?)", (at_us,))
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._db.close()
        except (apsw.Error, OSError) as err:
            self.abandon()
            raise _file_error("cannot close", self.path, err) from err

    def abandon(self) -> None:
        """Let the file go as it lies, without another write or sync."""
        with contextlib.suppress(apsw.Error, OSError):
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._db.close()

    def _checkpoint(self, mode: int) -> None:
        self._db.wal_checkpoint(mode=mode)
        self._frames = 0

    def _on_commit(self, db: apsw.Connection, name: str, frames: int) -> int:  # noqa: ARG002 - apsw's form
        self._frames = frames
        return apsw.SQLITE_OK


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRows:
    """What a file holds.

    Attributes:
        name: Its name.
        rows: Its rows.
        is_closed: Whether its writer said that nothing is missing at the end.
        is_whole: Whether the numbers are without holes, and the file is not damaged.
    """

    name: FileName
    rows: tuple[Row, ...]
    is_closed: bool
    is_whole: bool


class RowReader:
    """Reads a file whose writer has ended, a batch of rows at a time.

    Attributes:
        name: The file's name.
        n_rows: Rows read so far.
        is_closed: Whether its writer said that nothing is missing at the end; once all is read.
        is_whole: Whether the numbers so far are without holes, and nothing is damaged.
    """

    def __init__(self, name: FileName, db: apsw.Connection) -> None:
        """Begin to read; `open_rows` opens the file."""
        self.name = name
        self.n_rows = 0
        self.is_closed = False
        self.is_whole = True
        self._db = db

    def batches(self, size: int) -> Iterator[tuple[Row, ...]]:
        """Yield the rows in order; what comes before damage is kept."""
        if not self._db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'closed'").get:
            return  # it was cut off before its first row
        try:
            cursor = self._db.execute(_SELECT)
            while batch := tuple(map(Row._make, itertools.islice(cursor, size))):
                numbers = range(self.n_rows + 1, self.n_rows + 1 + len(batch))
                self.is_whole = self.is_whole and [row.seq for row in batch] == list(numbers)
                self.n_rows += len(batch)
                yield batch
            self.is_closed = bool(self._db.execute("SELECT count(*) FROM closed").get)
        except apsw.CorruptError:
            self.is_whole = False


@contextlib.contextmanager
def open_rows(path: Path) -> Iterator[RowReader]:
    """Open a file whose writer has ended.

    Raises:
        LedgerUnavailableError: Another process holds it; try again.
        LedgerFileError: It cannot be read at all.
    """
    name = FileName.parse(path.name)
    if name is None:
        raise LedgerFileError(f"{path} is not named as a file of a ledger; name it as it was")
    try:
        with _reading(path) as db:
            yield RowReader(name, db)
    except apsw.BusyError as err:
        raise LedgerUnavailableError(f"{path} is in use; try again once its writer ended") from err
    except apsw.Error as err:
        raise _file_error("cannot read", path, err) from err


def read_file(path: Path) -> FileRows:
    """Return the rows of a file whose writer has ended.

    Raises:
        LedgerUnavailableError: Another process holds it; try again.
        LedgerFileError: It cannot be read at all.
    """
    with open_rows(path) as reader:
        rows = tuple(itertools.chain.from_iterable(reader.batches(_BATCH_ROWS)))
    return FileRows(
        name=reader.name, rows=rows, is_closed=reader.is_closed, is_whole=reader.is_whole
    )


def is_live(path: Path) -> bool:
    """Return whether a writer holds a file."""
    try:
        with _reading(path) as db:
            db.execute("SELECT count(*) FROM sqlite_schema").get  # noqa: B018 - takes the lock
    except apsw.BusyError:
        return True
    except apsw.Error:
        return False
    return False


def remove_file(path: Path) -> None:
    """Remove a file of rows and what SQLite keeps beside it; no matter what is gone already."""
    for suffix in _PARTS:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    sync_folder(path)


def move_file(path: Path, folder: Path) -> None:
    """Move a file of rows and what SQLite keeps beside it; no matter what is gone already."""
    for suffix in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(folder / (path.name + suffix))
    sync_folder(path)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[apsw.Connection]:
    if not path.exists():
        raise LedgerFileError(f"{path} is missing; restore it")
    db = _connect(path, None)
    try:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        yield db
    finally:
        db.close()


def _connect(path: Path, vfs: str | None) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    return apsw.Connection(str(path), flags=flags, vfs=vfs)


def _file_error(doing: str, path: Path, err: Exception) -> LedgerFileError:
    return LedgerFileError(f"{doing} {path}: {cause_of(err)}; check the disk")


def cause_of(err: Exception) -> str:
    """Return what the system calls an error: SQLite's name of it, or the system's."""
    code = getattr(err, "extendedresult", None)
    name = apsw.mapping_extended_result_codes.get(code) if code is not None else None
    return str(name or getattr(err, "strerror", None) or type(err).__name__)
