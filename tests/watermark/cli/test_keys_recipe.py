"""Keys that an engine holds: `rotate` tells how to restart, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watermark.keys import load_keys

if TYPE_CHECKING:
    from tests.watermark.cli.shell import Shell

UNIT = "tokenizer:sha256:" + "0" * 64


def test_rotating_an_engines_key_prints_the_recipe(shell: Shell) -> None:
    number = shell.folder / "engine-key.txt"
    number.write_text("1311768467463790320")
    done = shell(
        "keys", "import", number, "--scheme", "vllm-gumbel", "--id", "vllm-1",
        "--dir", shell.folder, "--unit", UNIT,
    )  # fmt: skip
    record = done.stdout.replace('state = "detect"', 'state = "marking"\nscope = "engine"')
    keys = shell.folder / "KEYS.toml"
    keys.write_text(f'schema = 1\n\n[[scope]]\nname = "engine"\nmodels = ["m"]\n\n{record}')
    assert [one.claims for one in load_keys(keys)] == [True]
    before = keys.read_text()
    for extra in ((), ("--now",), ("--dry-run",)):
        told = shell("keys", "rotate", "--keys", keys, "--scope", "engine", *extra)
        assert told.exit_code == 1
        assert "Restart the engines one after another" in told.stdout
        assert """--watermark-config '{"algorithm": "gumbel", "key": NUMBER}'""" in told.stdout
        assert "`splice` with a key of its own" in told.stdout
        assert "1311768467463790320" not in told.stdout + told.stderr
        assert "nothing was changed" in told.stderr
    assert keys.read_text() == before


def test_a_key_of_ours_for_sglang_is_made_and_rotates(shell: Shell) -> None:
    done = shell(
        "keys", "new", "--scheme", "sglang-native", "--id", "a", "--dir", shell.folder,
        "--unit", UNIT,
    )  # fmt: skip
    keys = shell.folder / "KEYS.toml"
    keys.write_text(f"schema = 1\n\n{done.stdout}")
    assert shell("keys", "rotate", "--keys", keys, "--id", "b", "--now").exit_code == 0
    assert {one.scheme for one in load_keys(keys)} == {"sglang-native"}
