"""`watermark trace`: accounts named from files, and what cannot be traced is said."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import pytest

from tests.watermark.cli.shell import WITNESS, marked_text

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.watermark.cli.shell import Shell
    from watermark.keys import KeyRecord

SHARE = ("--account-share-q16", "32768")
INNOCENT = [f"innocent-{i}" for i in range(200)]


@pytest.fixture
def record(shell: Shell) -> KeyRecord:
    return shell.key("2026-11", *SHARE)


@pytest.fixture
def names(shell: Shell) -> Path:
    lines = ["# customers", "", *INNOCENT, "guilty", "other"]
    return shell.file("names.txt", "\n".join(lines))


def rows(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_account_of_a_file_is_named(shell: Shell, record: KeyRecord, names: Path) -> None:
    marked = shell.file("a.txt", marked_text(record, 600, account="guilty"))
    plain = shell.file("b.txt", marked_text(record, 600))
    result = shell("trace", marked, plain, "--keys", shell.keys, "--accounts", names, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = rows(result)
    assert list(first) == [
        "file", "key_id", "n_tokens", "n_scored", "n_accounts", "n_tests", "pvalue", "alpha",
        "named", "ranked",
    ]  # fmt: skip
    assert (first["named"], second["named"]) == (["guilty"], [])
    assert (first["n_accounts"], first["n_tests"]) == (202, 404)
    assert isinstance(first["ranked"], list)
    assert [list(one) for one in first["ranked"]] == [
        ["account", "z", "log10_pvalue", "log10_pvalue_family"]
    ] * 3
    assert first["ranked"][0]["log10_pvalue_family"] < -6


def test_people_get_a_table_and_a_sentence(shell: Shell, record: KeyRecord, names: Path) -> None:
    marked = shell.file("a.txt", marked_text(record, 600, account="guilty"))
    result = shell("trace", marked, "--keys", shell.keys, "--accounts", names, "--top", "2")
    heading, first, second, empty, sentence = result.stdout.splitlines()
    assert heading.split() == [
        "file", "key", "account", "named", "scored", "z", "log10", "p", "log10", "p", "family-wise",
    ]  # fmt: skip
    assert first.split()[1:4] == ["2026-11", "guilty", "yes"]
    assert second.split()[3] == "no"
    assert empty == ""
    assert sentence.startswith("1 of 202 accounts named at 0.001 family-wise over 202 tests.")
    assert "nothing about who put it there" in sentence


def test_a_mixture_is_one_body_when_pooled(shell: Shell, record: KeyRecord, names: Path) -> None:
    files = [
        shell.file(f"{account}.txt", marked_text(record, 1500, seed, account=account))
        for seed, account in enumerate(("guilty", "other"))
    ]
    call: list[str | Path] = ["trace", *files, "--keys", shell.keys, "--accounts", names, "--json"]
    (pooled,) = rows(shell(*call, "--pooled"))
    assert sorted(pooled["named"]) == ["guilty", "other"]  # type: ignore[call-overload]
    assert pooled["files"] == list(map(str, files))
    assert [row["named"] for row in rows(shell(*call))] == [["guilty"], ["other"]]


def test_accounts_come_from_the_proxys_file_too(shell: Shell, record: KeyRecord) -> None:
    accounts = shell.file("accounts.toml", '[[account]]\nname = "guilty"\nkeys = ["sha256:00"]\n')
    marked = shell.file("a.txt", marked_text(record, 400, account="guilty"))
    (row,) = rows(shell("trace", marked, "--keys", shell.keys, "--accounts", accounts, "--json"))
    assert row["named"] == ["guilty"]


def test_the_exit_status_tells_whether_one_is_named(
    shell: Shell, record: KeyRecord, names: Path
) -> None:
    call = ("--keys", shell.keys, "--accounts", names, "--exit-code")
    marked = shell.file("a.txt", marked_text(record, 600, account="guilty"))
    plain = shell.file("b.txt", marked_text(record, 600))
    assert shell("trace", marked, *call).exit_code == 0
    assert shell("trace", plain, *call).exit_code == 3


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="extra `plots`")
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_ranks_are_drawn(shell: Shell, record: KeyRecord, names: Path, suffix: str) -> None:
    marked = shell.file("a$b.txt", marked_text(record, 400, account="guilty"))
    plot = shell.folder / f"ranks.{suffix}"
    result = shell("trace", marked, "--keys", shell.keys, "--accounts", names, "--plot", plot)
    assert result.exit_code == 0
    head = plot.read_bytes()
    assert head.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    nowhere = shell.folder / "none" / f"ranks.{suffix}"
    result = shell("trace", marked, "--keys", shell.keys, "--accounts", names, "--plot", nowhere)
    assert (result.exit_code, "give --plot a path" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no account"),
        ("a\nb\na\n", "account 'a' stands twice"),
        ("e\u0301\n", "names.txt:1: 'e\\u0301' names no account"),
        (b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_a_bad_list_is_refused(
    shell: Shell, record: KeyRecord, content: str | bytes, message: str
) -> None:
    text = shell.file("a.txt", marked_text(record, 50))
    names = shell.file("names.txt", content)
    result = shell("trace", text, "--keys", shell.keys, "--accounts", names)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert "spec/accounts.md" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[account]\n", "the file is to be TOML"),
        ("account = 3\n", "write [[account]]"),
        ('[[account]]\nstate = "active"\n', "number 1 has no name"),
    ],
)
def test_a_bad_table_is_refused(
    shell: Shell, record: KeyRecord, content: str, message: str
) -> None:
    text = shell.file("a.txt", marked_text(record, 50))
    accounts = shell.file("accounts.toml", content)
    result = shell("trace", text, "--keys", shell.keys, "--accounts", accounts)
    assert (result.exit_code, message in result.stderr) == (1, True)


def test_a_key_without_a_channel_is_refused(shell: Shell, names: Path) -> None:
    record = shell.key("plain")
    text = shell.file("a.txt", marked_text(record, 50))
    result = shell("trace", text, "--keys", shell.keys, "--accounts", names)
    assert (result.exit_code, "no key has an account channel" in result.stderr) == (1, True)


def test_what_cannot_be_read_is_said_and_the_rest_is_traced(
    shell: Shell, record: KeyRecord, names: Path
) -> None:
    marked = shell.file("a.txt", marked_text(record, 600, account="guilty"))
    short = shell.file("short.txt", WITNESS)
    call = ("trace", short, shell.folder / "none.txt", marked, "--keys", shell.keys, "--json")
    result = shell(*call, "--accounts", names)
    assert result.exit_code == 1
    assert [row["named"] for row in rows(result)] == [["guilty"]]
    assert "short.txt: nothing to score" in result.stderr
    assert "none.txt: no such file" in result.stderr


def test_a_plot_of_another_kind_is_a_mistake_in_the_command(
    shell: Shell, record: KeyRecord, names: Path
) -> None:
    text = shell.file("a.txt", marked_text(record, 50))
    plot = shell.folder / "ranks.doc"
    result = shell("trace", text, "--keys", shell.keys, "--accounts", names, "--plot", plot)
    assert (result.exit_code, ".png, .svg, .pdf" in result.stderr) == (2, True)
