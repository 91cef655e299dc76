"""`watermark keys import`: an engine's key is taken over, detects, and is never quoted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from tests.support.engines import EngineMissingError
from tests.support.foreign import foreign_detector, vllm_text
from watermark.cli import render
from watermark.keys import KEYS_HEADER, load_keys

if TYPE_CHECKING:
    from tests.watermark.cli.shell import Shell

UNIT = "tokenizer:sha256:" + "0f" * 32
SECRET = "1311768467463790320"  # noqa: S105 - of a test


def test_an_engines_text_is_detected_from_the_command_line(shell: Shell) -> None:
    key = shell.file("engine.txt", "42\n")
    made = shell(
        "keys", "import", key, "--scheme", "vllm-gumbel", "--id", "vllm", "--dir", shell.folder,
        "--unit", UNIT,
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    shell.keys.write_text(KEYS_HEADER + made.stdout)
    try:
        text = vllm_text(42, 120)
    except (EngineMissingError, ModuleNotFoundError) as missing:
        pytest.skip(str(missing))
    ids = shell.file("ids.json", msgspec.json.encode(text))
    result = shell("detect", ids, "--keys", shell.keys, "--ids", "--json")
    assert result.exit_code == 0, result.stderr
    row = msgspec.json.decode(result.stdout)
    assert row["scheme"] == "vllm-gumbel"
    assert row["law"] == "gamma"
    assert "log10_pvalue_floor" not in row
    assert row["log_pvalue"] == foreign_detector("vllm-gumbel", [42]).detect(text).log_pvalue
    assert row["log10_pvalue"] < -10


def test_decoys_state_their_floor(shell: Shell) -> None:
    key = shell.file("engine.txt", SECRET)
    made = shell(
        "keys", "import", key, "--scheme", "hf-green-list", "--id", "hf", "--dir", shell.folder,
        "--unit", UNIT, "--parameter", "vocab_size=50",
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    assert SECRET not in made.stdout + made.stderr
    shell.keys.write_text(KEYS_HEADER + made.stdout)
    (record,) = load_keys(shell.keys)
    assert record.parameter("vocab_size") == 50
    ids = shell.file("ids.json", msgspec.json.encode(np.arange(15).tolist()))
    result = shell("detect", ids, "--keys", shell.keys, "--ids", "--json")
    row = msgspec.json.decode(result.stdout)
    assert row["law"] == "decoys"
    assert row["log10_pvalue_floor"] == pytest.approx(-3)
    shown = shell("detect", ids, "--keys", shell.keys, "--ids")
    assert "cannot be smaller than 10^-3.00" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("", (), "holds 0 integers; scheme 'vllm-gumbel' takes 1"),
        ("1 2", (), "holds 2 integers"),
        ("-5", (), "no integer of 64 bits"),
        ("18446744073709551616", (), "no integer of 64 bits"),
        ("key=5", (), "no integer of 64 bits"),
        ("5", ("--parameter", "alpha=much"), "is not of type float"),
        ("5", ("--parameter", "beta=1"), "has no parameter 'beta'"),
        ("5", ("--context-width", "99"), "choose 1 to 64"),
    ],
)
def test_what_is_no_key_is_refused_and_nothing_written(
    shell: Shell, content: str, options: tuple[str, ...], says: str
) -> None:
    key = shell.file("engine.txt", content)
    result = shell(
        "keys", "import", key, "--scheme", "vllm-gumbel", "--id", "k", "--dir", shell.folder,
        "--unit", UNIT, *options,
    )  # fmt: skip
    assert result.exit_code not in (0, render.EXIT_NULL_STANDS)
    assert says in " ".join(result.stderr.split())
    assert not list(shell.folder.glob("*.key"))


def test_a_unit_is_asked_for_and_sglangs_keys_are_hexadecimal(shell: Shell) -> None:
    key = shell.file("engine.txt", "deadbeef, 10")
    base = ("keys", "import", key, "--scheme", "sglang-gumbel", "--id", "s", "--dir", shell.folder)
    assert "give --tokenizer" in shell(*base).stderr
    made = shell(*base, "--unit", UNIT)
    shell.keys.write_text(KEYS_HEADER + made.stdout)
    (record,) = load_keys(shell.keys)
    assert getattr(record.secret, "integers") == (0xDEADBEEF, 0x10)  # noqa: B009


def test_an_engines_key_lives_through_the_other_commands(shell: Shell) -> None:
    """History, commitments, rotation and destruction of a file that holds such a key too."""
    key = shell.file("engine.txt", SECRET)
    made = shell(
        "keys", "import", key, "--scheme", "hf-green-list", "--id", "hf", "--dir", shell.folder,
        "--unit", UNIT, "--parameter", "vocab_size=50", "--parameter", "greenlist_ratio=0.5",
    )  # fmt: skip
    own = shell("keys", "new", "--id", "own", "--dir", shell.folder)
    shell.keys.write_text(KEYS_HEADER + made.stdout + own.stdout)
    for command in (
        ("check", "--record"),
        ("commit", "--create-log", "example.com/log"),
        ("rotate", "--period", "30d"),
        ("list",),
        ("status",),
        ("check",),
    ):
        result = shell("keys", *command, "--keys", shell.keys)
        assert result.exit_code == 0, (command, result.stderr)
        assert SECRET not in result.stdout + result.stderr
    (record,) = load_keys(shell.keys).by_id("hf")
    assert record.parameter("greenlist_ratio") == 0.5
    history = (shell.folder / "KEYS.history.jsonl").read_text()
    assert '"parameters":{"greenlist_ratio":0.5,"vocab_size":50}' in history
    text = shell.keys.read_text()
    shell.keys.write_text(text.replace("vocab_size = 50", "vocab_size = 51"))
    changed = shell("keys", "check", "--keys", shell.keys)
    assert changed.exit_code != 0
    assert "vocab_size" in changed.stderr
    shell.keys.write_text(text)
    disclosed = shell("keys", "disclose", "hf", "--keys", shell.keys)
    assert disclosed.exit_code != 0
    assert "engine's" in disclosed.stderr
