"""The next secret goes where the last one lies, or where one says; what fails leaves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyrage
import pytest

from tests.support.vault import TOKEN, serving_vault
from watermark.keys import KEYS_HEADER, load_keys

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.watermark.cli.shell import Shell


@pytest.fixture
def ready(shell: Shell) -> Shell:
    identity = pyrage.x25519.Identity.generate()
    shell.file("age.txt", f"{identity}\n").chmod(0o600)
    shell.keys.write_text(KEYS_HEADER + '[age]\nidentity = "file:age.txt"\n')
    shell.key("a")
    return shell


def rotate(shell: Shell, *args: str | Path, code: int = 0) -> Result:
    result = shell("keys", "rotate", "--keys", shell.keys, *args)
    assert result.exit_code == code, result.stderr
    assert TOKEN not in result.stderr
    return result


def secrets(shell: Shell) -> list[str]:
    return [line[10:-1] for line in shell.keys.read_text().splitlines() if line[:6] == "secret"]


def test_age_files_follow_age_files(ready: Shell) -> None:
    rotate(ready, "--id", "b", "--at", "2099-01-01", "--to", "age:sub", code=1)  # no such folder
    (ready.folder / "sub").mkdir()
    rotate(ready, "--id", "b", "--at", "2099-01-01", "--to", "age:sub")
    rotate(ready, "--id", "c", "--at", "2099-02-01")
    assert secrets(ready)[1:] == ["age:sub/b.age", "age:sub/c.age"]
    assert len({one.secret.fingerprint for one in load_keys(ready.keys)}) == 3
    assert (ready.folder / "sub" / "c.age").stat().st_mode & 0o777 == 0o600
    assert (ready.folder / "sub" / "c.age").read_bytes().startswith(b"age-encryption.org/v1")


def test_age_files_go_to_whom_one_says(ready: Shell) -> None:
    own = pyrage.x25519.Identity.from_str((ready.folder / "age.txt").read_text().strip())
    escrow = pyrage.x25519.Identity.generate()
    both = ("--recipient", str(own.to_public()), "--recipient", str(escrow.to_public()))
    rotate(ready, "--id", "b", "--at", "2099-01-01", "--to", "age:.", *both)
    assert pyrage.decrypt((ready.folder / "b.age").read_bytes(), [escrow]).startswith(b"output-")
    table = f'identity = "file:age.txt"\nrecipients = ["{escrow.to_public()}"]'
    ready.keys.write_text(ready.keys.read_text().replace('identity = "file:age.txt"', table))
    # Nobody here could open it, so that it is refused, and taken back.
    told = rotate(ready, "--id", "c", "--at", "2099-02-01", code=1).stderr
    assert "cannot be decrypted" in told
    assert not (ready.folder / "c.age").exists()
    bad = rotate(ready, "--id", "c", "--at", "2099-02-01", "--recipient", "age1x", code=1).stderr
    assert "age recipient 'age1x' is none" in bad


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_vault_takes_what_follows_what_it_holds(ready: Shell) -> None:
    with serving_vault(ready.folder) as (table, stored):
        ready.keys.write_text(ready.keys.read_text().replace("[age]", f"{table}[age]"))
        shown = rotate(
            ready, "--id", "b", "--at", "2099-01-01", "--to", "vault:kv/t#k", "--dry-run"
        )
        assert "vault:kv/t/b#k" in shown.stderr
        assert not stored
        rotate(ready, "--id", "b", "--at", "2099-01-01", "--to", "vault:kv/t#k")
        rotate(ready, "--id", "c", "--at", "2099-02-01")
        assert list(stored) == ["t/b", "t/c"]
        stored["t/d"] = {}
        told = rotate(ready, "--id", "d", "--at", "2099-03-01", code=1).stderr
        assert "answers InvalidRequest" in told
        assert stored["t/d"] == {}  # what is there stays
        rotate(ready, "--id", "e", "--at", "2099-03-01", "--to", "vault-transit:transit/wm#.")
        rotate(ready, "--id", "f", "--at", "2099-04-01")
        assert secrets(ready)[1:] == [
            "vault:kv/t/b#k",
            "vault:kv/t/c#k",
            "vault-transit:transit/wm#e.vault",
            "vault-transit:transit/wm#f.vault",
        ]
        assert len({one.secret.fingerprint for one in load_keys(ready.keys)}) == 5


def test_an_env_file_is_written_by_whoever_keeps_it(ready: Shell) -> None:
    line = f"WM_A={load_keys(ready.keys).records[0].secret.reveal().hex()}\n"
    ready.file("wm.env", line).chmod(0o600)
    text = ready.keys.read_text()
    ready.keys.write_text(
        "\n".join(
            'secret = "env-file:wm.env#WM_A"' if one.startswith("secret") else one
            for one in text.splitlines()
        )
    )
    told = rotate(ready, "--id", "b", "--at", "2099-01-01", code=1).stderr
    assert "give --secret env-file:PATH#NAME" in told
    with (ready.folder / "wm.env").open("a") as file:
        file.write("WM_B=" + "5a" * 32 + "\n")
    rotate(ready, "--id", "b", "--at", "2099-01-01", "--secret", "env-file:wm.env#WM_B")
    assert load_keys(ready.keys).by_id("b")[0].secret.reveal() == b"\x5a" * 32
    rotate(ready, "--id", "c", "--at", "2099-02-01", "--dir", ready.folder)
    assert secrets(ready)[1:] == ["env-file:wm.env#WM_B", "file:c.key"]


@pytest.mark.parametrize(
    "place", ["vault:kv", "s3:bucket", "file:", "vault-transit:a/b", "env-file:x"]
)
def test_what_is_no_place_is_refused(ready: Shell, place: str) -> None:
    told = rotate(ready, "--to", place, code=1).stderr
    assert "file:FOLDER" in told
    rotate(ready, "--to", "file:.", "--dir", ready.folder, code=2)
