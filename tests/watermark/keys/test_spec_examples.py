"""What the specifications print is what the code computes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from watermark.keys import (
    FOREIGN_SCHEMES,
    KEYS_HEADER,
    SUBKEY_BYTES,
    ForeignKey,
    SecretKey,
    format_key_file,
    format_record,
    load_keys,
    write_key_file,
)
from watermark.keys.keysfile import format_fields

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
KEY_FILE = (ROOT / "watermark" / "spec" / "key-file.md").read_text(encoding="utf-8")
SEEDING = (ROOT / "watermark" / "spec" / "seeding.md").read_text(encoding="utf-8")
VECTORS = json.loads((ROOT / "tests" / "vectors" / "seeding.json").read_text(encoding="utf-8"))
FOREIGN = (ROOT / "watermark" / "spec" / "foreign-schemes.md").read_text(encoding="utf-8")
SECRET = bytes(range(32))


def block_after(text: str, heading: str) -> str:
    """Return the first fenced block after `heading`."""
    found = re.search(r"^```\w*\n(.*?)^```$", text[text.index(heading) :], re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_key_file_example_is_the_canonical_file() -> None:
    shown = block_after(KEY_FILE, "`2026-11.key`, beside it")
    assert shown.encode() == format_key_file(SecretKey("2026-11", SECRET))


def test_the_keys_example_is_what_is_rendered_and_loads(tmp_path: Path) -> None:
    shown = block_after(KEY_FILE, "`KEYS.toml`:\n")
    record = format_record(key_id="2026-11", unit="words/v1", secret="2026-11.key")  # noqa: S106
    assert shown == f"{KEYS_HEADER}\n{record}"
    write_key_file(tmp_path / "2026-11.key", SecretKey("2026-11", SECRET))
    (tmp_path / "KEYS.toml").write_text(shown, encoding="utf-8")
    assert load_keys(tmp_path / "KEYS.toml").marking("words/v1", now=NOW).key_id == "2026-11"


def test_the_example_of_an_engines_key_is_canonical_and_loads(tmp_path: Path) -> None:
    shown = block_after(FOREIGN, "`KEYS.toml`, beside")
    key_file = block_after(FOREIGN, "`vllm-2026.key` (the key")
    key = ForeignKey("vllm-2026", [42])
    assert key_file.encode() == format_key_file(key)
    write_key_file(tmp_path / "vllm-2026.key", key)
    (tmp_path / "KEYS.toml").write_text(shown, encoding="utf-8")
    (record,) = load_keys(tmp_path / "KEYS.toml").by_id("vllm-2026")
    assert shown == f"{KEYS_HEADER}\n{format_fields(record, 'file:vllm-2026.key')}"


def test_every_scheme_of_an_engine_is_specified_with_its_parameters() -> None:
    for name, scheme in FOREIGN_SCHEMES.items():
        section = FOREIGN[FOREIGN.index(f"\n## {name}\n") :].split("\n## ")[1]
        assert f"Context width {scheme.context_width}" in " ".join(section.split())
        for parameter, pinned in scheme.parameters.items():
            assert f"`{parameter}`" in section
            assert pinned.default is None or f"{pinned.default}" in section


def test_the_subkey_table_is_the_codes() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", SEEDING, re.MULTILINE)
    assert {label: int(size) for label, size in rows} == dict(SUBKEY_BYTES)


def test_the_worked_example_is_the_vector() -> None:
    shown = block_after(SEEDING, "### Worked example")
    vector = VECTORS["positions"][13]
    for member in ("secret", "key_id", "stream", "route", "uniform", "account"):
        assert re.search(rf"^{member} +{re.escape(vector[member])}( |$)", shown, re.MULTILINE)
    assert f"= {vector['code_index']} " in shown
    key = SecretKey(vector["key_id"], bytes.fromhex(vector["secret"]))
    for label in ("context", "account-tag", "account-code"):
        assert key.subkey(label, SUBKEY_BYTES[label]).hex() in shown


@pytest.mark.parametrize("text", [KEY_FILE, SEEDING, FOREIGN])
def test_lines_fit_a_page(text: str) -> None:
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert max(map(len, lines)) <= 100
