"""One sequence of bytes stands for a key; every other one, and every open file, is refused."""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from watermark.errors import KeyFileError, KeyFilePermissionError
from watermark.keys import (
    SecretKey,
    format_key_file,
    keyfile,
    parse_key_file,
    read_key_file,
    write_key_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = bytes(range(32))
KEY = SecretKey("2026-11", SECRET)
CANONICAL = b"""\
output-watermark-secret-key/v1
key-id: 2026-11
secret: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
sha256: b2f3032c391040dfaf9be908397542bbe3384310999ea61be059d4ca3cca3406
"""
KEY_IDS = (
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=255)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda text: 1 <= len(text.encode()) <= 255)
)
SECRETS = st.binary(min_size=32, max_size=32)


def test_the_form_is_that_of_the_specification() -> None:
    assert format_key_file(KEY) == CANONICAL
    assert parse_key_file(CANONICAL, path="x.key") == KEY


@given(KEY_IDS, SECRETS)
def test_parsing_undoes_formatting(key_id: str, secret: bytes) -> None:
    key = SecretKey(key_id, secret)
    data = format_key_file(key)
    assert len(data) <= keyfile.MAX_KEY_FILE_BYTES
    assert parse_key_file(data, path="x.key") == key


def test_every_single_flipped_bit_is_refused() -> None:
    for bit in range(8 * len(CANONICAL)):
        data = bytearray(CANONICAL)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KeyFileError):
            parse_key_file(bytes(data), path="x.key")


@given(st.binary(max_size=600) | st.text().map(str.encode))
def test_arbitrary_bytes_raise_only_the_files_own_error(data: bytes) -> None:
    with pytest.raises(KeyFileError, match=r"x\.key.*(restore|make another)"):
        parse_key_file(data, path="x.key")


@given(st.data())
def test_a_changed_file_is_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(CANONICAL)))
    end = data.draw(st.integers(start, len(CANONICAL)))
    changed = CANONICAL[:start] + data.draw(st.binary(max_size=8)) + CANONICAL[end:]
    assume(changed != CANONICAL)
    with pytest.raises(KeyFileError):
        parse_key_file(changed, path="x.key")


def resummed(body: bytes) -> bytes:
    """Return a file whose checksum is right, so that only its form is at fault."""
    return body + b"sha256: " + hashlib.sha256(body).hexdigest().encode() + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        CANONICAL.replace(b"\n", b"\r\n"),
        resummed(CANONICAL[: CANONICAL.index(b"sha256")].replace(b"\n", b"\r\n")),
        CANONICAL + b"\n",
        CANONICAL[:-1],
        b"\xef\xbb\xbf" + CANONICAL,
        CANONICAL.upper(),
        CANONICAL.replace(b"b2f3", b"B2F3"),
        resummed(CANONICAL[: CANONICAL.index(b"sha256")].replace(b"0a0b", b"0A0B")),
        resummed(CANONICAL[: CANONICAL.index(b"sha256")].replace(b"/v1", b"/v2")),
        resummed(CANONICAL[: CANONICAL.index(b"sha256")].replace(b"2026-11", b"20\x0026")),
        resummed(CANONICAL[: CANONICAL.index(b"sha256")].replace(b"2026-11", b"e\xcc\x81")),
        resummed(CANONICAL[: CANONICAL.index(b"sha256")].replace(b"2026-11", b"\xff")),
        CANONICAL.replace(b"2026-11", b"2026-12"),
        CANONICAL + CANONICAL,
    ],
)
def test_what_looks_like_a_key_file_is_refused_without_quoting_it(data: bytes) -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_key_file(data, path="dir/x.key")
    message = str(caught.value)
    assert "dir/x.key" in message
    assert "1e1f" not in message.lower()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_id_with_a_control_character_cannot_be_written_down() -> None:
    with pytest.raises(KeyFileError, match="control character"):
        format_key_file(SecretKey("a\nb", SECRET))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_then_reading_gives_the_key_back(tmp_path: Path) -> None:
    path = tmp_path / "2026-11.key"
    before = os.umask(0o777)
    try:
        write_key_file(path, KEY)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.stat().st_nlink == 1
    assert names(tmp_path) == ["2026-11.key"]
    assert read_key_file(path, expected_id="2026-11") == KEY


@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_that_exists_is_overwritten(tmp_path: Path, *, dangling: bool) -> None:
    path = tmp_path / "2026-11.key"
    if dangling:
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"precious")
    with pytest.raises(KeyFileError, match="never overwritten"):
        write_key_file(path, KEY)
    assert names(tmp_path) == ["2026-11.key"]
    assert dangling or path.read_bytes() == b"precious"


def test_a_leftover_of_another_write_is_named(tmp_path: Path) -> None:
    (tmp_path / ".x.key.partial").touch()
    with pytest.raises(KeyFileError, match=r"\.x\.key\.partial is in the way"):
        write_key_file(tmp_path / "x.key", KEY)
    assert names(tmp_path) == [".x.key.partial"]


@pytest.mark.parametrize("name", ["missing/x.key", "x" * 255, "a\0b"])
def test_a_path_that_cannot_be_made_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="cannot write key file"):
        write_key_file(tmp_path / name, KEY)


def fail(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "link", "fchmod"])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(KeyFileError, match="no space left"):
        write_key_file(tmp_path / "x.key", KEY)
    assert names(tmp_path) == []


def test_a_sibling_that_stays_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(KeyFileError, match=r"cannot remove .*\.partial, which holds the secret"):
        write_key_file(tmp_path / "x.key", KEY)


def test_a_failing_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "x.key")
    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(KeyFileError, match="cannot read key file"):
        read_key_file(path, expected_id="2026-11")


def test_a_folder_that_is_not_synced_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[int], None] = os.fsync
    calls: list[int] = []

    def second_fails(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            fail()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(KeyFileError, match="was written, but its folder"):
        write_key_file(tmp_path / "x.key", KEY)
    assert len(calls) == 2


def make(path: Path, mode: int = 0o600) -> Path:
    write_key_file(path, KEY)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o604, 0o602, 0o620, 0o660, 0o601])
def test_an_open_file_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = make(tmp_path / "x.key", mode)
    with pytest.raises(KeyFilePermissionError, match=f"mode {mode:04o}.*chmod 600"):
        read_key_file(path, expected_id="2026-11")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert read_key_file(make(tmp_path / "x.key", mode), expected_id="2026-11") == KEY


def owned_by(monkeypatch: pytest.MonkeyPatch, owner: int, user: int) -> None:
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        fields = list(real(descriptor))
        fields[4] = owner
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "geteuid", lambda: user)


@pytest.mark.parametrize("mode", [0o640, 0o440, 0o400])
def test_the_group_may_read_what_root_owns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = make(tmp_path / "x.key", mode)
    owned_by(monkeypatch, 0, 4242)
    assert read_key_file(path, expected_id="2026-11") == KEY


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o641])
def test_no_one_else_may_read_what_root_owns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = make(tmp_path / "x.key", mode)
    owned_by(monkeypatch, 0, 4242)
    with pytest.raises(KeyFilePermissionError, match="chmod 640"):
        read_key_file(path, expected_id="2026-11")


def test_another_users_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "x.key")
    owned_by(monkeypatch, 4243, 4242)
    with pytest.raises(KeyFilePermissionError, match=r"another user \(uid 4243\)"):
        read_key_file(path, expected_id="2026-11")


def test_a_link_is_followed_and_its_target_checked(tmp_path: Path) -> None:
    target = make(tmp_path / "target")
    link = tmp_path / "x.key"
    link.symlink_to(target)
    assert read_key_file(link, expected_id="2026-11") == KEY
    target.chmod(0o644)
    with pytest.raises(KeyFilePermissionError):
        read_key_file(link, expected_id="2026-11")


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (pipe, tmp_path):
        with pytest.raises(KeyFileError, match="not a regular file"):
            read_key_file(path, expected_id="2026-11")


@pytest.mark.parametrize("name", ["missing.key", "a\0b", "x" * 300])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="cannot open key file"):
        read_key_file(tmp_path / name, expected_id="2026-11")


def test_a_long_file_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "x.key")
    path.write_bytes(CANONICAL * 8)
    with pytest.raises(KeyFileError, match="longer than 1024 bytes"):
        read_key_file(path, expected_id="2026-11")


def test_the_key_of_another_id_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "x.key")
    with pytest.raises(KeyFileError, match="holds key '2026-11', not '2026-12'"):
        read_key_file(path, expected_id="2026-12")
