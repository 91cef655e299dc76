"""`watermark keys new`: a key file and a record that load, or nothing at all."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from watermark.cli import render
from watermark.cli.keys import file_stem
from watermark.keys import KEYS_HEADER, load_keys
from watermark.text import tokenizer_unit_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.watermark.cli.shell import Shell


def test_the_record_and_the_key_file_load(shell: Shell) -> None:
    result = shell("keys", "new", "--id", "2026-11", "--dir", shell.folder)
    assert result.exit_code == 0
    path = shell.folder / "2026-11.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert result.stdout.startswith("[[key]]\n")
    shell.keys.write_text(KEYS_HEADER + result.stdout)
    (record,) = load_keys(shell.keys)
    assert (record.key_id, record.unit) == ("2026-11", "words/v1")
    assert (record.context_width, record.rho, record.account_share_q16) == (2, 0.9, 0)
    assert f"watermark: wrote the secret to {path}" in result.stderr
    assert "watermark: hint: add the record on standard output to KEYS.toml" in result.stderr
    assert "warning" not in result.stderr


def test_options_go_into_the_record(shell: Shell) -> None:
    record = shell.key(
        "k", "--unit", f"tokenizer:sha256:{'0f' * 32}",
        "--context-width", "3", "--rho", "1", "--account-share-q16", "8192",
    )  # fmt: skip
    assert record.unit == f"tokenizer:sha256:{'0f' * 32}"
    assert (record.context_width, record.rho, record.account_share_q16) == (3, 1.0, 8192)


def test_a_tokenizer_gives_the_unit(shell: Shell, tokenizer_data: bytes) -> None:
    path = shell.file("tokenizer.json", tokenizer_data)
    assert shell.key("k", "--tokenizer", path).unit == tokenizer_unit_id(tokenizer_data)


def test_every_key_has_a_secret_of_its_own(shell: Shell) -> None:
    shell.key("a")
    shell.key("b", state="detect")
    assert len({record.secret.reveal() for record in load_keys(shell.keys)}) == 2


@pytest.mark.parametrize(
    ("key_id", "name"),
    [
        ("2026-11", "2026-11.key"),
        ("epoch/é", "epoch%2F%C3%A9.key"),
        ("..", "%2E..key"),
        ("-rf", "%2Drf.key"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.key"),
        ("50%", "50%25.key"),
    ],
)
def test_an_id_of_any_characters_has_a_safe_file_name(shell: Shell, key_id: str, name: str) -> None:
    record = shell.key(key_id)
    assert record.key_id == key_id
    assert {path.name for path in shell.folder.iterdir()} == {"KEYS.toml", name}


def test_the_longest_ids_have_file_names_that_differ(shell: Shell) -> None:
    ids = ["é" * 127, "é" * 126, "a" * 255]
    assert len({file_stem(key_id) for key_id in ids}) == 3
    assert all(len(file_stem(key_id)) <= 200 for key_id in ids)
    assert shell("keys", "new", "--id", ids[0], "--dir", shell.folder).exit_code == 0


def test_a_folder_open_to_others_is_warned_about(shell: Shell) -> None:
    shell.folder.chmod(0o755)
    result = shell("keys", "new", "--id", "k", "--dir", shell.folder)
    assert result.exit_code == 0
    assert f"warning: {shell.folder} is open to every user" in result.stderr
    assert "run chmod 700 on it" in result.stderr


def test_a_key_file_is_never_overwritten(shell: Shell) -> None:
    secret = shell.key("k").secret
    result = shell("keys", "new", "--id", "k", "--dir", shell.folder)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "exists and is never overwritten; choose another path" in result.stderr
    assert load_keys(shell.keys).by_id("k")[0].secret == secret


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--id", ""], "choose one of 1 to 255"),
        (["--id", "e\u0301"], "write '\\xe9'"),
        (["--id", "a\nb"], "choose another id"),
        (["--id", "x" * 256], "choose one of 1 to 255"),
        (["--id", "k", "--unit", "words/v9"], "write 'words/v1', or 'tokenizer:sha256:'"),
        (["--id", "k", "--context-width", "5"], "choose 1 to 4"),
        (["--id", "k", "--rho", "1.5"], "choose 0 to 1"),
        (["--id", "k", "--rho", "nan"], "choose 0 to 1"),
        (["--id", "k", "--account-share-q16", "-1"], "choose 0 to 65536"),
        (["--id", "k", "--tokenizer", "none.json"], "pass --tokenizer FILE"),
    ],
)
def test_what_is_refused_names_the_remedy_and_leaves_nothing(
    shell: Shell, options: list[str], remedy: str
) -> None:
    result = shell("keys", "new", "--dir", shell.folder, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert remedy in result.stderr
    assert list(shell.folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(shell: Shell) -> None:
    result = shell("keys", "new", "--id", "k", "--dir", shell.folder / "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no such file or directory; choose a writable folder" in result.stderr


def test_a_unit_and_a_tokenizer_exclude_each_other(shell: Shell) -> None:
    result = shell(
        "keys", "new", "--id", "k", "--dir", shell.folder, "--unit", "words/v1", "--tokenizer", "t"
    )
    assert result.exit_code == 2
    assert "give one of them" in result.stderr


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError(32, "")])
def test_a_key_whose_record_cannot_be_printed_is_taken_back(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(_text: str) -> None:
        raise error

    _replace(monkeypatch, fail)
    result = shell("keys", "new", "--id", "k", "--dir", shell.folder)
    assert result.exit_code == 1
    assert list(shell.folder.iterdir()) == []
    quiet = isinstance(error, BrokenPipeError)
    assert result.stderr == ("" if quiet else _NO_SPACE)


_NO_SPACE = "watermark: cannot write the result: no space left on device\n"


def _replace(monkeypatch: pytest.MonkeyPatch, fail: Callable[[str], None]) -> None:
    monkeypatch.setattr(render, "write_data", fail)
