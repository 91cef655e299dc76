"""Every shipped configuration loads, and says what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.accounts.document import parse_accounts
from proxy.config import load_config
from watermark.errors import CommitmentError
from watermark.keys import SecretKey, format_record, load_keys, write_key_file
from watermark.text import WORDS_V1

FOLDER = Path(__file__).parents[2] / "configs"
ACCOUNTS = FOLDER / "accounts.toml"
KEYS = FOLDER / "KEYS.toml"
FILES = sorted(set(FOLDER.glob("*.toml")) - {ACCOUNTS, KEYS})


def test_there_are_some() -> None:
    assert {"proxy.toml", "quickstart.toml"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_loads(path: Path) -> None:
    config = load_config(path)
    assert config.models
    for model in config.models:
        assert model.splice.logprobs <= model.capabilities.logprobs
        assert model.select.candidates <= model.capabilities.max_n
        assert model.splice.drafts <= model.capabilities.max_n


def test_the_accounts_load_and_close_no_door() -> None:
    document = parse_accounts(ACCOUNTS.read_text(encoding="utf-8"), path=ACCOUNTS)
    assert [account.name for account in document.accounts] == ["acme"]
    assert (document.closed, document.unknown.policy) == (False, "serve")


def test_keys_mark_only_once_they_are_committed_to(tmp_path: Path) -> None:
    record = format_record(key_id="a", unit=WORDS_V1, secret="a.key")  # noqa: S106 - a path
    tmp_path.chmod(0o700)
    (tmp_path / "KEYS.toml").write_text(KEYS.read_text(encoding="utf-8") + record)
    write_key_file(tmp_path / "a.key", SecretKey("a", bytes(range(32))))
    with pytest.raises(CommitmentError, match="names no log"):
        load_keys(tmp_path / "KEYS.toml")


def test_the_quickstart_keeps_to_one_machine_and_one_folder() -> None:
    config = load_config(FOLDER / "quickstart.toml")
    state = FOLDER.parent / "watermark-state"
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8080)
    assert config.embedded is not None
    assert (config.embedded.host, config.embedded.port) == ("127.0.0.1", 9090)
    assert Path(config.state).resolve() == state
    assert Path(config.keys.file).resolve() == state / "KEYS.toml"
    assert config.disclosure.callers == ["*"]
    assert config.accounts is not None
    assert Path(config.accounts.file) == ACCOUNTS


def test_a_deployment_tells_nobody_and_makes_no_keys() -> None:
    config = load_config(FOLDER / "proxy.toml")
    assert config.disclosure.callers == []
    assert not config.keys.create_if_missing
    assert config.embedded is None
