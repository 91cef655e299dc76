"""`watermark ledger`: made, sealed, checked, read and erased by command."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.watermark.cli.shell import Shell
from watermark.keys import load_keys
from watermark.ledger import (
    Delivered,
    Ending,
    Fingerprinter,
    Ledger,
    Outcome,
    WriterLimits,
    fingerprints,
    load_settings,
)
from watermark.seeding import KeyedUniforms

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = [[5, 6, 7, 8, 5], [6, 7, 9]]
ACCOUNT = "ada@example.com"
TOKENIZER = (
    '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'
)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def make(shell: Shell, *options: str) -> Path:
    done = shell("ledger", "new", "--dir", shell.folder, "--name", "example.com/ledger", *options)
    assert done.exit_code == 0, done.stderr
    assert "verifier key: example.com/ledger+" in done.stderr
    return shell.folder / "LEDGER.toml"


def deliver(path: Path, keyed: Fingerprinter, *, account: str | None = ACCOUNT) -> None:
    settings = replace(load_settings(path), limits=WriterLimits(reserve_bytes=0), node="node")
    ledger = Ledger(
        settings,
        machine="m",
        now=time.time,
        clock=time.monotonic,
        entropy=secrets.token_bytes,
    )
    entry = ledger.begin(
        account=account, opening=b"?", keyed=keyed, tokenizer="t", model="m", path="splice"
    )
    choices = [Delivered(tokens=one, units=lambda one=one: one) for one in TOKENS]  # type: ignore[misc]
    ending = Ending(outcome=Outcome.FINISH, n_tokens=8, n_bytes=20, digest=b"d" * 32)
    ledger.end(entry, ending, choices, keyed)
    ledger.close()


def keyed_of(shell: Shell) -> KeyedUniforms:
    tokenizer = shell.file("tokenizer.json", TOKENIZER)
    shell.key("2026-11", "--tokenizer", tokenizer)
    return KeyedUniforms(load_keys(shell.folder / "KEYS.toml").by_id("2026-11")[0])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tokens_are_kept_counted_and_erased(shell: Shell) -> None:
    path, keyed = make(shell, "--keeps", "tokens"), keyed_of(shell)
    deliver(path, keyed)
    deliver(path, keyed, account=None)
    sealed = shell("ledger", "seal", "--ledger", path, "--node", "node")
    assert (sealed.exit_code, sealed.stdout) == (0, "")
    assert "sealed segment 1: 4 rows, 0 gaps" in sealed.stderr
    out = shell.folder / "contexts.jsonl"
    counted = shell(
        *("ledger", "contexts", "--ledger", path, "-o", out),
        *("--keys", shell.folder / "KEYS.toml", "--key-id", "2026-11"),
    )
    assert counted.exit_code == 0, counted.stderr
    choices = [Delivered(tokens=one, units=lambda one=one: one) for one in TOKENS]  # type: ignore[misc]
    (wanted,) = fingerprints([(keyed, choices)])
    # Both replies begin alike, so they are one conversation.
    assert [(row["fingerprint"], row["conversations"]) for row in lines(out)] == [
        (one, 1) for one in wanted.tolist()
    ]
    replies = shell.folder / "replies.jsonl"
    assert shell("ledger", "export", "--ledger", path, "-o", replies, "--tokens").exit_code == 0
    assert [row["tokens"] for row in lines(replies)] == [TOKENS, TOKENS]
    assert replies.stat().st_mode & 0o777 == 0o600
    erased = shell("ledger", "erase", ACCOUNT, "--ledger", path)
    assert f"destroyed the data key of account {ACCOUNT!a}" in erased.stderr
    assert "there is no data key" in shell("ledger", "erase", ACCOUNT, "--ledger", path).stderr
    assert shell("ledger", "export", "--ledger", path, "-o", replies, "--tokens").exit_code == 0
    assert sorted(row["tokens"] is None for row in lines(replies)) == [False, True]
    assert shell("ledger", "verify", "--ledger", path).exit_code == 0


def test_status_and_verify_say_what_there_is(shell: Shell) -> None:
    path, keyed = make(shell), keyed_of(shell)
    status = shell("ledger", "status", "--ledger", path, "--json")
    assert json.loads(status.stdout)["last segment"] == 0
    assert shell("ledger", "verify", "--ledger", path).stdout == ""
    deliver(path, keyed)
    status = shell("ledger", "status", "--ledger", path)
    assert "files to be sealed              1\n" in status.stdout
    assert shell("ledger", "seal", "--ledger", path, "--node", "node", "--quiet").stderr == ""
    told = shell("ledger", "verify", "--ledger", path).stdout
    assert told == "node: 1 segments hold (0 expired), 1 replies begun, 1 ended; gaps: none\n"
    shown = json.loads(shell("ledger", "verify", "--ledger", path, "--json").stdout)
    assert (shown["ended"], shown["logged"], shown["gaps"]) == (1, None, [])
    header = shell.folder / "segments" / "node" / "00000001.header"
    header.write_bytes(header.read_bytes().replace(b'"rows":2', b'"rows":4'))
    changed = shell("ledger", "verify", "--ledger", path)
    assert changed.exit_code == 1
    assert "does not hold" in changed.stderr


def test_the_log_of_keys_takes_the_roots(shell: Shell) -> None:
    keyed = keyed_of(shell)
    keys = shell.folder / "KEYS.toml"
    log = ("--keys", keys, "--create-log", "example.com/keys")
    assert shell("keys", "commit", *log).exit_code == 0
    path = make(shell, "--keys", "KEYS.toml")
    deliver(path, keyed)
    assert shell("ledger", "seal", "--ledger", path, "--node", "node").exit_code == 0
    shown = shell("ledger", "verify", "--ledger", path, "--log", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["logged"]) == (0, True)


def test_what_cannot_be_done_names_the_remedy(shell: Shell) -> None:
    missing = shell("ledger", "status", "--ledger", shell.folder / "LEDGER.toml")
    assert (missing.exit_code, "watermark ledger new" in missing.stderr) == (1, True)
    path = make(shell)
    again = shell("ledger", "new", "--dir", shell.folder, "--name", "x")
    assert (again.exit_code, "there already" in again.stderr) == (1, True)
    for arguments, message in (
        (("verify", "--ledger", path, "--node", "other"), "no node 'other' has sealed"),
        (("verify", "--ledger", path, "--log"), "names no KEYS.toml"),
        (("export", "--ledger", path, "-o", shell.folder / "x.csv"), "neither .parquet nor"),
    ):
        failed = shell("ledger", *arguments)
        assert failed.exit_code == 1, failed.stdout
        assert message in failed.stderr
    assert "keeps no tokens" in shell("ledger", "erase", "a", "--ledger", path).stderr
    text = path.read_text()
    path.write_text(text.replace('store = "segments"', 'store = ""'))
    assert "names no store" in shell("ledger", "seal", "--ledger", path).stderr
    path.write_text(text + "other = 1\n")
    assert "unknown field `other`" in shell("ledger", "status", "--ledger", path).stderr


def test_a_store_that_is_away_leaves_what_waits(shell: Shell) -> None:
    path, keyed = make(shell), keyed_of(shell)
    shell.file("segments", "no folder")
    deliver(path, keyed)
    failed = shell("ledger", "seal", "--ledger", path, "--node", "node")
    assert failed.exit_code == 1
    assert "1 segments wait: store" in failed.stderr
    (shell.folder / "segments").unlink()
    assert shell("ledger", "seal", "--ledger", path, "--node", "node").exit_code == 0
    assert "1 ended" in shell("ledger", "verify", "--ledger", path).stdout
