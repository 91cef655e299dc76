"""Files that are replaced whole: what stands at a path is the old content or the new, never a part.

Rule 1: bytes reach the disk before they get their name, and the name before the call returns.
Rule 2: who edits says what he read; what was changed meanwhile is not overwritten.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

from watermark.errors import ConcurrentEditError, KeysConfigError, LogStorageError
from watermark.keys.keyfile import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DRAFT: Final = ".draft"


def digest_of(text: str) -> str:
    """Return what tells a text from any other."""
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other editors of a folder out, until the block ends.

    Raises:
        KeysConfigError: The folder cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise KeysConfigError(f"cannot open folder {folder}; correct the path") from err
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str, *, expected: str) -> None:
    """Give a file a new text in one step, if it still holds the one that was edited.

    Args:
        path: The file.
        text: Its new text.
        expected: `digest_of` the text that was edited.

    Raises:
        ConcurrentEditError: It holds another text by now.
        KeysConfigError: It is a link, or cannot be written.
    """
    try:
        if path.is_symlink():
            raise KeysConfigError(
                f"{path} is a symbolic link, so it is kept elsewhere; change it there"
            )
        mode = stat.S_IMODE(path.stat().st_mode)
        draft = path.with_name(f".{path.name}{_DRAFT}")
        write_synced(draft, text.encode(), mode)
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            draft.unlink()
            raise ConcurrentEditError(
                f"{path} was changed by another while it was edited; nothing was written"
            )
        draft.replace(path)
    except OSError as err:
        raise KeysConfigError(f"cannot write {path}; choose a writable folder") from err
    sync_folder(path)


def write_synced(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file and wait for the disk; its folder is not waited for."""
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


class FolderStorage:
    """A log's files in a folder.

    Args:
        folder: The folder, made where there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, path: str) -> bytes | None:
        """Return what is stored at `path`, None where there is nothing.

        Raises:
            LogStorageError: It cannot be read.
        """
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as err:
            raise LogStorageError(f"cannot read {self._folder / path}; restore it") from err

    def write(self, path: str, data: bytes) -> None:
        """Store `data` at `path`, whole and durably.

        Raises:
            LogStorageError: It cannot be written.
        """
        target = self._folder / path
        draft = target.with_name(f".{target.name}{_DRAFT}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_synced(draft, data)
            draft.replace(target)
        except OSError as err:
            raise LogStorageError(f"cannot write {target}; check the disk") from err
        for parent in (target, *target.parents):
            if parent == self._folder:
                break
            sync_folder(parent)
