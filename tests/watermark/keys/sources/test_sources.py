"""Every kind of reference opens the same key, or says what is wrong and nothing of the secret."""

from __future__ import annotations

import base64
import importlib
import os
from typing import TYPE_CHECKING, Any

import pyrage
import pytest

from tests.support.vault import TOKEN, serving_vault
from tests.watermark.keys.rings import NOW, record, secret_of
from watermark.errors import KeyFileError, KeysConfigError, KeysError, SecretSourceError
from watermark.keys import (
    KEYS_HEADER,
    ContextKey,
    KeyRing,
    KeyState,
    format_key_file,
    load_keys,
)
from watermark.keys.disclosure import disclose, format_disclosure
from watermark.keys.document import DocumentReader
from watermark.keys.sources.vault import VaultClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = secret_of("k")


def load(folder: Path, reference: str, head: str = "", more: str = "") -> KeyRing:
    path = folder / "KEYS.toml"
    body = f'[[key]]\nid = "k"\nunit = "words/v1"\nsecret = "{reference}"\n{more}'
    path.write_text(f"{KEYS_HEADER}{head}\n{body}")
    try:
        return load_keys(path, now=NOW)
    except KeysError as err:
        check(str(err), path)
        raise


def check(message: str, path: Path) -> None:
    """Hold a refusal to its form: file and line, and nothing that is secret."""
    digits = KEY.reveal().hex()
    assert not any(digits[at : at + 16] in message for at in range(49))
    assert TOKEN not in message
    assert f"{path}:" in message


def private(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(0o600)
    return path


@pytest.fixture
def age(tmp_path: Path) -> str:
    identity = pyrage.x25519.Identity.generate()
    private(tmp_path / "age.txt", f"# a comment\n{identity}\n")
    data = pyrage.encrypt(format_key_file(KEY), [identity.to_public()])
    (tmp_path / "k.age").write_bytes(data)
    return '[age]\nidentity = "file:age.txt"\n'


def test_age_opens_an_encrypted_key_file(tmp_path: Path, age: str) -> None:
    assert load(tmp_path, "age:k.age", age).records[0].secret == KEY


def test_age_says_what_is_missing(tmp_path: Path, age: str) -> None:
    with pytest.raises(KeysConfigError, match="needs \\[age\\] identity"):
        load(tmp_path, "age:k.age")
    with pytest.raises(KeyFileError, match="cannot read encrypted key file"):
        load(tmp_path, "age:none.age", age)
    (tmp_path / "age.txt").chmod(0o644)
    with pytest.raises(KeyFileError, match="too open"):
        load(tmp_path, "age:k.age", age)
    private(tmp_path / "age.txt", f"{pyrage.x25519.Identity.generate()}\n")
    with pytest.raises(KeyFileError, match="cannot be decrypted"):
        load(tmp_path, "age:k.age", age)
    private(tmp_path / "age.txt", "nothing\n")
    with pytest.raises(KeyFileError, match="no X25519 identity"):
        load(tmp_path, "age:k.age", age)


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, age: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SecretSourceError, match=r"pip install 'output-watermark\[age\]'"):
        load(tmp_path, "age:k.age", age)


def test_an_env_file_gives_a_line(tmp_path: Path) -> None:
    private(tmp_path / "e", f"# x\nOTHER=1\nWM_KEY={KEY.reveal().hex()}\n")
    assert load(tmp_path, "env-file:e#WM_KEY").records[0].secret == KEY
    for reference in ("env-file:e", "env-file:#WM_KEY", "env-file:e#1x"):
        with pytest.raises(KeysConfigError, match="is written `env-file:PATH#NAME`"):
            load(tmp_path, reference)
    with pytest.raises(KeyFileError, match="no line OTHER="):
        load(tmp_path, "env-file:e#OTHER")
    (tmp_path / "e").chmod(0o644)
    with pytest.raises(KeyFileError, match="too open"):
        load(tmp_path, "env-file:e#WM_KEY")


@pytest.mark.parametrize("reference", ["env:WM_KEY", "WM_KEY", KEY.reveal().hex(), "hex:00", ""])
def test_what_is_no_reference_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.setenv("WM_KEY", KEY.reveal().hex())
    with pytest.raises(KeysConfigError):
        load(tmp_path, reference)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[str]:
    with serving_vault(tmp_path) as (table, stored):
        stored["team/k"] = {"key": format_key_file(KEY).decode(), "n": 1}
        yield table


SEALED = f"vault:v1:{base64.b64encode(format_key_file(KEY)[::-1]).decode()}\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_vault_gives_a_field_and_decrypts(tmp_path: Path, vault: str) -> None:
    assert load(tmp_path, "vault:kv/team/k#key", vault).records[0].secret == KEY
    (tmp_path / "k.enc").write_text(SEALED)
    assert load(tmp_path, "vault-transit:transit/wm#k.enc", vault).records[0].secret == KEY


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("vault:kv/team/none#key", "answers InvalidPath"),
        ("vault:kv/team/k#n", "no text in field"),
        ("vault:kv/team/k#none", "no text in field"),
        ("vault:kv#key", "is written `vault:MOUNT/PATH#FIELD`"),
        ("vault-transit:transit/other#k.enc", "answers InvalidRequest"),
        ("vault-transit:transit/wm#none", "cannot read ciphertext"),
        ("vault-transit:wm#k.enc", "is written `vault-transit:"),
    ],
)
def test_vault_says_what_is_wrong(tmp_path: Path, vault: str, reference: str, says: str) -> None:
    (tmp_path / "k.enc").write_text(SEALED)
    with pytest.raises(KeysError, match=says):
        load(tmp_path, reference, vault)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_vault_is_asked_safely(tmp_path: Path, vault: str) -> None:
    with pytest.raises(KeysConfigError, match="needs \\[vault\\]"):
        load(tmp_path, "vault:kv/team/k#key")
    with pytest.raises(KeysConfigError, match="is not https"):
        load(tmp_path, "vault:kv/k#key", '[vault]\naddress = "http://v.example"\ntoken = "file:t"')
    with pytest.raises(KeysConfigError, match="token names no file"):
        load(tmp_path, "vault:kv/k#key", f'[vault]\naddress = "https://v"\ntoken = "{TOKEN}"')
    private(tmp_path / "token", "wrong")
    with pytest.raises(SecretSourceError, match="answers Forbidden"):
        load(tmp_path, "vault:kv/team/k#key", vault)
    gone = vault.replace("127.0.0.1:", "127.0.0.1:1#").partition("#")[0] + '"\ntoken = "file:token"'
    with pytest.raises(SecretSourceError, match="answers ConnectionError"):
        load(tmp_path, "vault:kv/team/k#key", gone)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_uses_no_connection_of_another(
    tmp_path: Path, vault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DocumentReader().read(tmp_path / "KEYS.toml", f"schema = 1\n{vault}").options
    client = VaultClient(tmp_path, options.vault)
    for pid in (1, 1, 2):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        client.ask("read", "team/k", mount_point="kv", raise_on_deleted_version=True)
    assert set(client._clients) == {1, 2}


DISCLOSED = 'state = "disclosed"\ndisclosed_at = 2026-11-01T00:00:00Z\n'


def test_a_disclosed_subkey_detects_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "k.context").write_bytes(format_disclosure(disclose(KEY)))
    ring = load(tmp_path, "context-subkey:k.context", more=DISCLOSED)
    secret = ring.records[0].secret
    assert isinstance(secret, ContextKey)
    assert secret.subkey("context", 16) == KEY.subkey("context", 16)
    assert ring.records[0].state is KeyState.DISCLOSED
    assert ring.detecting(NOW) == ring.records
    for label, length in (("account-code", 16), ("account-tag", 32), ("fingerprint", 16)):
        with pytest.raises(KeysError, match="cannot derive"):
            secret.subkey(label, length)
    with pytest.raises(KeysError, match="its secret is not here"):
        secret.reveal()
    with pytest.raises(KeysConfigError, match="no key marks"):
        ring.marking("words/v1", now=NOW)
    assert secret.subkey("context", 16).hex() not in repr(ring)


def test_a_disclosed_subkey_never_marks(tmp_path: Path) -> None:
    (tmp_path / "k.context").write_bytes(format_disclosure(disclose(KEY)))
    with pytest.raises(KeysConfigError, match=r"record 1 \('k'\).*never marks"):
        load(tmp_path, "context-subkey:k.context")
    (tmp_path / "k.context").write_bytes(format_disclosure(disclose(secret_of("j"))))
    with pytest.raises(KeyFileError, match="discloses key 'j'"):
        load(tmp_path, "context-subkey:k.context", more=DISCLOSED)


def test_a_key_file_that_was_opened_up_is_refused_at_the_next_load(tmp_path: Path) -> None:
    from watermark.keys import KeysLoader  # noqa: PLC0415 - the one test

    private(tmp_path / "k.key", format_key_file(KEY))
    load(tmp_path, "file:k.key")
    loader = KeysLoader(tmp_path / "KEYS.toml")
    assert loader.load().records[0] == record("k")
    (tmp_path / "k.key").chmod(0o644)
    with pytest.raises(KeyFileError, match="too open"):
        loader.load()
