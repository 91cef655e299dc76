"""`watermark-proxy accounts`: edits in one step, and what was seen, in a folder."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from proxy.accounts.watch import Watch
from proxy.accounts.watch_store import WatchStore
from proxy.cli.accounts import accounts
from tests.proxy.accounts.test_watch import NOON, caller, chat
from watermark.errors import AccountsFileError, WatermarkError

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
state = "state"
[upstream]
url = "http://127.0.0.1:9"
[keys]
file = "KEYS.toml"
[accounts]
file = "accounts.toml"
"""
ACCOUNTS = """\
schema = 1
# Ours.
[[account]]
name = "acme"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "proxy.toml").write_text(CONFIG)
    (tmp_path / "accounts.toml").write_text(ACCOUNTS)
    (tmp_path / "state").mkdir()
    watch = Watch(b"w" * 32)
    for i in range(30):
        watch.asked(caller("acme"), chat(f"solve this one now please {i}"), now=NOON + i)
        watch.decided(caller("acme"), "marked")
        watch.delivered(caller("acme"), list(range(600)), 2)
    watch.asked(caller("caller-00ff", "sk-2"), None, now=NOON)
    with contextlib.closing(WatchStore(tmp_path / "state/accounts.sqlite")) as store:
        store.add(watch.take())
    return tmp_path


def run(folder: Path, *args: str, stdin: str = "") -> str:
    call = [*args, "--config", str(folder / "proxy.toml")]
    result = CliRunner().invoke(accounts, call, input=stdin, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_state_is_one_edit(folder: Path) -> None:
    run(folder, "ban", "acme", "--dry-run")
    assert (folder / "accounts.toml").read_text() == ACCOUNTS
    run(folder, "ban", "acme")
    assert (folder / "accounts.toml").read_text() == ACCOUNTS + 'state = "banned"\n'
    run(folder, "suspend", "caller-00ff")
    run(folder, "watch", "acme")
    run(folder, "close")
    lines = run(folder, "list").splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["acme", "watched", "30", "18000"],
        ["caller-00ff", "suspended", "1", "0"],
    ]
    assert lines[-1].endswith("the door is closed to new ones")
    run(folder, "activate", "acme")
    run(folder, "open")
    assert "# Ours." in (folder / "accounts.toml").read_text()
    rows = [json.loads(line) for line in run(folder, "list", "--json").splitlines()]
    assert [(row["name"], row["state"]) for row in rows] == [
        ("acme", "active"),
        ("caller-00ff", "suspended"),
    ]


def test_a_bad_edit_changes_nothing(folder: Path) -> None:
    with pytest.raises(AccountsFileError, match=r"accounts.toml: no account 'nobody'"):
        run(folder, "ban", "nobody")
    (folder / "accounts.toml").write_text(ACCOUNTS + 'state = "gone"\n')
    with pytest.raises(AccountsFileError, match=r"accounts.toml:3: .*state"):
        run(folder, "ban", "caller-1")
    with pytest.raises(AccountsFileError, match=r"accounts.toml:3: "):
        run(folder, "check")
    assert (folder / "accounts.toml").read_text().endswith('"gone"\n')


def test_a_digest_comes_from_standard_input(folder: Path) -> None:
    first = run(folder, "digest", stdin="sk-1\n")
    assert first == run(folder, "digest", stdin="sk-1")
    assert len(first.strip()) == len("key:") + 32
    key = folder / "state/accounts.key"
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(WatermarkError, match="no key on standard input"):
        run(folder, "digest")
    key.chmod(0o644)
    with pytest.raises(WatermarkError, match="chmod 600"):
        run(folder, "digest", stdin="sk-1")


def test_suspects_are_ranked_with_reasons(folder: Path) -> None:
    heading, first, second = run(folder, "suspects").splitlines()
    assert heading.split() == ["account", "or", "cluster", "what", "stands", "out", "requests",
                               "tokens"]  # fmt: skip
    assert first.startswith("acme")
    assert "100% of prompts follow one template; " in first
    assert "nothing stands out" in second
    row = json.loads(run(folder, "suspects", "--json", "--top", "1"))
    assert (row["name"], row["features"]["requests"]) == ("acme", 30)


def test_a_case_is_a_folder(folder: Path) -> None:
    out = folder / "case"
    assert run(folder, "case", "acme", "--out", str(out)).strip() == str(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.txt", "accounts.json", "days.csv", "summary.json", "traits.csv",
    ]  # fmt: skip
    assert out.stat().st_mode & 0o777 == 0o700
    assert (out / "days.csv").read_text() == (
        "account,day,requests,replies,tokens\nacme,2024-10-04,30,30,18000\n"
    )
    assert json.loads((out / "accounts.json").read_text())[0]["name"] == "acme"
    with pytest.raises(WatermarkError, match="file exists; choose --out"):
        run(folder, "case", "acme", "--out", str(out))
    with pytest.raises(WatermarkError, match="nothing is known of 'nobody'"):
        run(folder, "case", "nobody")


def test_a_configuration_without_accounts_says_so(folder: Path) -> None:
    (folder / "proxy.toml").write_text(CONFIG.partition("[accounts]")[0])
    with pytest.raises(WatermarkError, match=r"has no \[accounts\]"):
        run(folder, "list")
