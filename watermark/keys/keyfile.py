"""The text file that holds one secret.

Rule 1: exactly one sequence of bytes stands for a key; every other one is refused, because what
a parser forgives is what a damaged or doctored file relies on. Rule 2: a message names the file
and the remedy, never a byte of the content. Rule 3: permissions are read from the open
descriptor, so that nobody can swap the file between the check and the read.

Source: `watermark/spec/key-file.md`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from typing import TYPE_CHECKING, Final

from watermark.errors import KeyFileError, KeyFilePermissionError, KeysError
from watermark.keys.foreign import ForeignKey
from watermark.keys.secret import SecretKey

if TYPE_CHECKING:
    from pathlib import Path

HEADER: Final = "output-watermark-secret-key/v1"
FOREIGN_HEADER: Final = "output-watermark-foreign-key/v1"
MAX_KEY_FILE_BYTES: Final = 1024  # the longest canonical file has 924

_FORM: Final = re.compile(
    rb"output-watermark-secret-key/v1\n"
    rb"key-id: ([^\n]{1,255})\n"
    rb"secret: ([0-9a-f]{64})\n"
    rb"sha256: [0-9a-f]{64}\n"
)
_FOREIGN_FORM: Final = re.compile(
    rb"output-watermark-foreign-key/v1\n"
    rb"key-id: ([^\n]{1,255})\n"
    rb"integers: ([0-9a-f]{16}(?: [0-9a-f]{16})*)\n"
    rb"sha256: [0-9a-f]{64}\n"
)
_PARTIAL_SUFFIX: Final = ".partial"
_RESTORE: Final = "restore it from a backup, or make another key with `watermark keys new`"


def format_key_file(key: SecretKey) -> bytes:
    """Return the canonical key file of `key`.

    Args:
        key: The key to write down.

    Returns:
        Four lines of UTF-8: form, key id, secret, and the SHA-256 of the three before; where the
        key is an engine's, its integers stand in the place of the secret.

    Raises:
        KeyFileError: The id holds a control character, which a line cannot carry.
    """
    if any(unicodedata.category(character) == "Cc" for character in key.key_id):
        raise KeyFileError(f"key id {key.key_id!a} holds a control character; choose another id")
    if isinstance(key, ForeignKey):
        form, secret = FOREIGN_HEADER, "integers: " + " ".join(f"{n:016x}" for n in key.integers)
    else:
        form, secret = HEADER, f"secret: {key.reveal().hex()}"
    body = f"{form}\nkey-id: {key.key_id}\n{secret}\n".encode()
    return body + f"sha256: {hashlib.sha256(body).hexdigest()}\n".encode()


def parse_key_file(data: bytes, *, path: str | Path) -> SecretKey:
    """Return the key that `data` stands for.

    Args:
        data: The whole content of a key file.
        path: Where it came from, for messages only.

    Returns:
        The key; formatting it again gives exactly `data`.

    Raises:
        KeyFileError: `data` is not byte for byte a canonical key file.
    """
    try:
        key = _key_of(data)
        canonical = b"" if key is None else format_key_file(key)
    except (KeysError, UnicodeDecodeError):
        # The cause quotes bytes of the file: it is dropped, not chained.
        raise KeyFileError(f"{_shown(path)} carries a malformed key id; {_RESTORE}") from None
    if key is None:
        raise KeyFileError(f"{_shown(path)} is not a key file of form {HEADER}; {_RESTORE}")
    if canonical != data:
        raise KeyFileError(f"{_shown(path)} does not match its checksum; {_RESTORE}")
    return key


def _key_of(data: bytes) -> SecretKey | None:
    """Return the key in lines of one of the two forms; None where they are of neither.

    Raises:
        KeysError: Its id is malformed.
        UnicodeDecodeError: Its id is not UTF-8.
    """
    found = _FORM.fullmatch(data)
    if found is not None:
        return SecretKey(found[1].decode(), bytes.fromhex(found[2].decode()))
    found = _FOREIGN_FORM.fullmatch(data)
    if found is None:
        return None
    return ForeignKey(found[1].decode(), [int(word, 16) for word in found[2].split(b" ")])


def read_key_file(path: Path, *, expected_id: str) -> SecretKey:
    """Read the key `expected_id` from the file at `path`.

    A symbolic link is followed, because orchestrators mount secrets that way; what it leads to
    must be a regular file that only its owner can read, or, where root owns it, its group.

    Args:
        path: The key file.
        expected_id: The id that the caller's record gives.

    Returns:
        The key.

    Raises:
        KeyFileError: The file is missing, unreadable, damaged, or belongs to another key.
        KeyFilePermissionError: Others than the owner can read it.
    """
    data = read_private_file(path, limit=MAX_KEY_FILE_BYTES)
    return expect_key(parse_key_file(data, path=path), expected_id, path=path)


def expect_key(key: SecretKey, expected_id: str, *, path: str | Path) -> SecretKey:
    """Return `key` if it is the one that a record asks for.

    Raises:
        KeyFileError: It is another.
    """
    if key.key_id != expected_id:
        raise KeyFileError(
            f"{_shown(path)} holds key {key.key_id!a}, not {expected_id!a}; "
            "correct `id` or `secret` in KEYS.toml"
        )
    return key


def read_private_file(path: Path, *, limit: int, what: str = "key file") -> bytes:
    """Read a file that holds a secret, checked on the open descriptor.

    Args:
        path: The file.
        limit: Bytes that it may have.
        what: What it is, for messages.

    Returns:
        All of it.

    Raises:
        KeyFileError: The file is missing, unreadable or too long.
        KeyFilePermissionError: Others than the owner can read it.
    """
    try:
        # Non-blocking, lest a named pipe hold up the start; it is refused one line later.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as err:
        raise KeyFileError(
            f"cannot open {what} {_shown(path)}: {_reason(err)}; correct the path in KEYS.toml, "
            "or make a key with `watermark keys new`"
        ) from err
    try:
        check_private(os.fstat(descriptor), path)
        data = _read_at_most(descriptor, limit + 1)
    except OSError as err:
        raise KeyFileError(
            f"cannot read {what} {_shown(path)}: {_reason(err)}; {_RESTORE}"
        ) from err
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise KeyFileError(f"{_shown(path)} is longer than {limit} bytes, so no {what}; {_RESTORE}")
    return data


def write_key_file(path: Path, key: SecretKey) -> None:
    """Write `key` to a new file at `path`, as :func:`write_private_file` does.

    Args:
        path: The file to create; its folder must exist.
        key: The key to write down.

    Raises:
        KeyFileError: Something exists at `path`, or the file cannot be written.
    """
    write_private_file(path, format_key_file(key))


def write_private_file(path: Path, data: bytes) -> None:
    """Write `data` to a new file at `path`, durably, readable by its owner only.

    The bytes go to a sibling named `.NAME.partial` first, reach the disk, and only then get
    their name: `path` holds the whole key or does not exist. An existing file stays as it is.

    Args:
        path: The file to create; its folder must exist.
        data: What it holds.

    Raises:
        KeyFileError: Something exists at `path`, or the file cannot be written.
    """
    partial = path.parent / f".{path.name}{_PARTIAL_SUFFIX}"
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError as err:
        raise KeyFileError(
            f"{_shown(partial)} is in the way: another write runs, or one was cut short; "
            "remove it when none runs"
        ) from err
    except (OSError, ValueError) as err:
        raise _unwritable(path, err) from err
    try:
        _write_and_sync(descriptor, data)
        os.link(partial, path)
    except FileExistsError as err:
        raise KeyFileError(
            f"{_shown(path)} exists and is never overwritten; choose another path"
        ) from err
    except OSError as err:
        raise _unwritable(path, err) from err
    finally:
        _remove(partial)
    sync_folder(path)


def remove_file(path: Path) -> None:
    """Delete a file that holds a secret, durably; one that is not there is deleted.

    Raises:
        KeyFileError: It cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except (OSError, ValueError) as err:
        raise KeyFileError(
            f"cannot delete {_shown(path)}: {_reason(err)}; delete it by hand"
        ) from err
    sync_folder(path)


def check_private(status: os.stat_result, path: Path) -> None:
    """Refuse what is no regular file, or what others than its owner could read.

    Raises:
        KeyFileError: It is no regular file.
        KeyFilePermissionError: Others than the owner can read it.
    """
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{_shown(path)} is not a regular file; give the key file itself")
    if status.st_uid == os.geteuid() and mode & 0o077 == 0:
        return
    if status.st_uid == 0 and mode & ~0o640 == 0:  # as PostgreSQL reads its TLS key
        return
    if status.st_uid not in (0, os.geteuid()):
        raise KeyFilePermissionError(
            f"{_shown(path)} belongs to another user (uid {status.st_uid}); chown it to the user "
            "that runs this, and chmod 600"
        )
    wanted = "600" if status.st_uid == os.geteuid() else "640"
    raise KeyFilePermissionError(
        f"{_shown(path)} has mode {mode:04o}, too open for a secret; run chmod {wanted} on it, "
        "and replace the key if others may have read it"
    )


def _read_at_most(descriptor: int, limit: int) -> bytes:
    """Return what the open file holds, up to `limit` bytes."""
    data = b""
    while len(data) < limit and (chunk := os.read(descriptor, limit - len(data))):
        data += chunk
    return data


def _write_and_sync(descriptor: int, data: bytes) -> None:
    """Write all of `data`, wait for the disk, and close."""
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask left
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _remove(partial: Path) -> None:
    """Remove the sibling that the bytes went to; it holds the secret."""
    try:
        partial.unlink()
    except OSError as err:
        raise KeyFileError(
            f"cannot remove {_shown(partial)}, which holds the secret too: {_reason(err)}; "
            "remove it by hand"
        ) from err


def sync_folder(path: Path) -> None:
    """Make a new name survive a power cut.

    Args:
        path: The file that got the name.

    Raises:
        KeyFileError: Its folder does not reach the disk.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as err:
        raise KeyFileError(
            f"{_shown(path)} was written, but its folder did not reach the disk: {_reason(err)}; "
            "check the disk before relying on the file"
        ) from err


def _unwritable(path: Path, err: Exception) -> KeyFileError:
    """Return the error for a key file that could not be made."""
    return KeyFileError(
        f"cannot write key file {_shown(path)}: {_reason(err)}; choose a writable folder on a "
        "local file system"
    )


def _reason(err: Exception) -> str:
    """Return the operating system's words, or the interpreter's."""
    words = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return words[:1].lower() + words[1:]


def _shown(path: str | Path) -> str:
    """Return `path` with what a terminal would act on escaped."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
