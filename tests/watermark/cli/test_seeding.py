"""`watermark seeding check`: the shipped vectors agree, and another port's are judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.watermark.cli.shell import Shell

VECTORS = Path(__file__).parents[2] / "vectors" / "seeding.json"


def vectors() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(VECTORS.read_text())
    return loaded


def total() -> int:
    return sum(len(part) for part in vectors().values())


def test_the_shipped_vectors_agree(shell: Shell) -> None:
    result = shell("seeding", "check", VECTORS)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{total()} of {total()} vectors agree\n"
    assert shell("seeding", "check", "-", stdin=VECTORS.read_bytes()).stdout == result.stdout


def test_those_that_differ_are_named(shell: Shell) -> None:
    changed = vectors()
    changed["positions"][3]["token"] += 1
    changed["words"][0]["ids"] = []
    data = json.dumps(changed).encode()
    result = shell("seeding", "check", "-", stdin=data)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{total() - 2} of {total()} vectors agree",
        "positions[3] differs",
        "words[0] differs",
    ]
    assert "hint: words are cut here by Unicode" in result.stderr
    result = shell("seeding", "check", "-", "--json", stdin=data)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["total"], found["agreeing"]) == (total(), total() - 2)
    assert found["differing"] == ["positions[3]", "words[0]"]


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (b"", "write it in the specified form"),
        (b"\xff", "write it in the specified form"),
        (b'{"positions": []}', "missing required field `uniforms`"),
        (b'{"positions": [], "uniforms": [], "words": []}', "give some to compare"),
        (b'{"positions": [], "uniforms": [], "words": [], "x": 1}', "unknown field `x`"),
    ],
)
def test_a_file_of_another_form_is_refused(shell: Shell, data: bytes, remedy: str) -> None:
    file = shell.file("v.json", data)
    result = shell("seeding", "check", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"watermark: {file}: " in result.stderr
    assert remedy in result.stderr
    assert "hint: the form is in watermark/spec/seeding.md" in result.stderr


def test_a_file_that_is_not_there_is_refused(shell: Shell) -> None:
    result = shell("seeding", "check", shell.folder / "none.json")
    assert result.exit_code == 1
    assert "no such file or directory; correct the path" in result.stderr
