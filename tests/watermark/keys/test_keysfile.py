"""`KEYS.toml` gives a ring, or an error that names file, record, line and remedy."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watermark.errors import KeyFileError, KeysConfigError, KeysError
from watermark.keys import (
    KEYS_HEADER,
    KeyRing,
    KeyState,
    SecretKey,
    format_record,
    load_keys,
    write_key_file,
)

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = f"tokenizer:sha256:{'ab' * 32}"
RECORD = '[[key]]\nid = "2026-11"\nunit = "words/v1"\nsecret = "file:2026-11.key"\n'
OTHER = '[[key]]\nid = "2026-12"\nunit = "words/v1"\nsecret = "file:2026-12.key"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, key_id in enumerate(("2026-10", "2026-11", "2026-12")):
        write_key_file(tmp_path / f"{key_id}.key", SecretKey(key_id, bytes([number]) * 32))
    return tmp_path


def load(folder: Path, text: str | bytes) -> KeyRing:
    path = folder / "KEYS.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_keys(path)


def message_of(folder: Path, text: str | bytes) -> str:
    with pytest.raises(KeysConfigError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert message.startswith((str(folder / "KEYS.toml"), "cannot read"))
    assert not message.endswith(".")
    return message


def test_a_short_record_takes_the_defaults(folder: Path) -> None:
    (record,) = load(folder, KEYS_HEADER + RECORD)
    assert record.secret == SecretKey("2026-11", b"\1" * 32)
    assert (record.key_id, record.unit) == ("2026-11", "words/v1")
    assert (record.context_width, record.scheme) == (2, "gumbel-copula")
    assert (record.rho, record.account_share_q16) == (0.9, 0)
    assert record.state is KeyState.MARKING


def test_a_full_record_is_taken_as_it_stands(folder: Path) -> None:
    text = format_record(
        key_id="2026-11",
        unit=TOKENS,
        secret="2026-11.key",  # noqa: S106 - a path
        context_width=4,
        rho=1,
        account_share_q16=65536,
        state=KeyState.DETECT,
    )
    (record,) = load(folder, KEYS_HEADER + text)
    assert (record.unit, record.context_width) == (TOKENS, 4)
    assert (record.rho, record.account_share_q16) == (1.0, 65536)
    assert record.state is KeyState.DETECT


def test_one_key_serves_several_units_with_one_secret(folder: Path) -> None:
    ring = load(folder, KEYS_HEADER + RECORD + RECORD.replace("words/v1", TOKENS))
    first, second = ring
    assert first.secret is second.secret
    assert ring.units == ("words/v1", TOKENS)
    assert len(ring.by_id("2026-11")) == 2


def test_comments_blank_lines_and_crlf_are_toml(folder: Path) -> None:
    text = KEYS_HEADER + "\n# the key of November\n" + RECORD
    assert len(load(folder, text.replace("\n", "\r\n"))) == 1


def test_an_absolute_path_is_taken(folder: Path) -> None:
    elsewhere = folder / "sub"
    elsewhere.mkdir()
    path = elsewhere / "KEYS.toml"
    path.write_text(KEYS_HEADER + RECORD.replace("2026-11.key", f"{folder}/2026-11.key"))
    assert len(load_keys(path)) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RECORD, "`schema` is missing"),
        ("schema = 2\n", "`schema` is missing or not 1"),
        ("schema = true\n" + RECORD, "`schema` is missing or not 1"),
        ("schema = 1.0\n" + RECORD, "`schema` is missing or not 1"),
        (KEYS_HEADER, "no key is given"),
        ("schema = 1\nkey = []\n", "no key is given"),
        ("schema = 1\nextra = 1\n" + RECORD, "unknown field `extra`"),
        ("schema = 1\nschema = 1\n", "not TOML"),
        ("schema = 1\nx = [[[[", "not TOML"),
        ("schema = 1\nx = " + "[" * 100_000, "not TOML"),
        ("schema = " + "9" * 5000, "not TOML"),
        ("schema = 1\n[key]\nid = 'a'\n", "expected `array`"),
        (b"schema = 1\n# \xff\n", "not UTF-8"),
        (b"#" * (1 << 24) + b"\n", "longer than 16777216 bytes"),
    ],
)
def test_a_malformed_file_is_refused(folder: Path, text: str | bytes, says: str) -> None:
    assert says in message_of(folder, text)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("colour = 1", "unknown field `colour`"),
        ('context_width = "2"', "expected `int`"),
        ("context_width = true", "expected `int`"),
        ("context_width = 0", "context_width 0 is out of range; choose 1 to 4"),
        ("context_width = 5", "context_width 5 is out of range"),
        ("context_width = 99999999999999999999", "out of range"),
        ('scheme = "tournament"', "scheme 'tournament' is unknown; known: gumbel-copula"),
        ("rho = 1.5", "rho 1.5 is out of range"),
        ("rho = -0.1", "rho -0.1 is out of range"),
        ("rho = nan", "rho nan is out of range"),
        ("rho = inf", "rho inf is out of range"),
        ("account_share_q16 = 65537", "account_share_q16 65537 is out of range"),
        ("account_share_q16 = -1", "account_share_q16 -1 is out of range"),
        ('state = "pending"', "state 'pending' follows from not_before; leave `state` out"),
    ],
)
def test_a_malformed_field_is_named_with_its_line(folder: Path, line: str, says: str) -> None:
    good = OTHER.replace("2026-12", "2026-10").replace("words/v1", TOKENS)
    message = message_of(folder, f"{KEYS_HEADER}\n{good}\n{RECORD}{line}\n")
    assert says in message
    assert "KEYS.toml:8: record 2" in message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id = "2026-11"\n', "", "missing required field `id`"),
        ('unit = "words/v1"\n', "", "missing required field `unit`"),
        ('secret = "file:2026-11.key"\n', "", "missing required field `secret`"),
        ('"2026-11"\n', '""\n', "key id has 0 bytes"),
        ('"2026-11"\n', '"e\u0301"\n', "not in Unicode NFC"),
        ("words/v1", "words/v2", "unit 'words/v2' is unknown"),
        ("words/v1", TOKENS.replace("ab", "AB"), "is unknown"),
        ("words/v1", TOKENS + "\\n", "is unknown"),
        ("file:2026-11.key", "file:", "`secret` names no file"),
        ("file:2026-11.key", "env:KEY", "`secret` names no file"),
    ],
)
def test_a_malformed_text_field_is_named(folder: Path, old: str, new: str, says: str) -> None:
    assert old in RECORD
    assert says in message_of(folder, KEYS_HEADER + RECORD.replace(old, new, 1))


def test_an_inline_secret_is_refused_and_not_shown(folder: Path) -> None:
    message = message_of(folder, KEYS_HEADER + RECORD.replace("file:2026-11.key", "c0ffee" * 10))
    assert "replace the key" in message
    assert "c0ffee" not in message


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (RECORD, "key '2026-11' has two records for unit 'words/v1'"),
        (OTHER, "keys '2026-11' and '2026-12' both mark unit 'words/v1'"),
        (
            RECORD.replace("words/v1", TOKENS).replace("2026-11.key", "2026-12.key"),
            "key '2026-11' is given two secrets",
        ),
    ],
)
def test_a_contradiction_is_refused_where_it_arises(folder: Path, second: str, says: str) -> None:
    message = message_of(folder, f"{KEYS_HEADER}{RECORD}{second}")
    assert says in message
    assert "KEYS.toml:6: record 2" in message


def test_two_ids_with_one_secret_are_refused(folder: Path) -> None:
    write_key_file(folder / "copy.key", SecretKey("copy", b"\1" * 32))
    second = OTHER.replace("2026-12", "copy").replace("words/v1", TOKENS)
    message = message_of(folder, KEYS_HEADER + RECORD + second)
    assert "keys '2026-11' and 'copy' have one secret" in message


def test_lines_are_counted_as_editors_count_them(folder: Path) -> None:
    text = f"{KEYS_HEADER}# one\u2028line\r\n{RECORD}rho = 2.0\n"
    assert "KEYS.toml:3: record 1" in message_of(folder, text)


def test_no_line_is_guessed_for_inline_tables(folder: Path) -> None:
    text = 'schema = 1\nkey = [{id = "k", unit = "words/v2", secret = "file:k.key"}]\n'
    assert "KEYS.toml: record 1 ('k'): unit" in message_of(folder, text)


@pytest.mark.parametrize("name", ["missing/KEYS.toml", "a\0b", "."])
def test_a_file_that_cannot_be_read_is_named(folder: Path, name: str) -> None:
    with pytest.raises(KeysConfigError, match="cannot read"):
        load_keys(folder / name)


def test_a_missing_or_wrong_secret_is_the_key_files_error(folder: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot open key file"):
        load(folder, KEYS_HEADER + RECORD.replace("2026-11.key", "missing.key"))
    with pytest.raises(KeyFileError, match="holds key '2026-12'"):
        load(folder, KEYS_HEADER + RECORD.replace("2026-11.key", "2026-12.key"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text().map(lambda text: (KEYS_HEADER + text).encode()))
def test_arbitrary_bytes_raise_only_our_errors(folder: Path, data: bytes) -> None:
    with pytest.raises(KeysError):
        load(folder, data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_gives_a_ring_or_our_error(folder: Path, data: st.DataObject) -> None:
    text = (KEYS_HEADER + RECORD).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    changed = text[:start] + data.draw(st.binary(max_size=6)) + text[end:]
    try:
        assert len(load(folder, changed)) == 1
    except KeysError as err:
        assert "\1" * 8 not in str(err)  # noqa: PT017 - either outcome is right


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@given(
    TEXTS,
    st.integers(1, 4),
    st.floats(0, 1),
    st.integers(0, 65536),
    st.sampled_from([KeyState.MARKING, KeyState.DETECT, KeyState.SUSPENDED]),
)
def test_a_rendered_record_reads_back(
    path: str, width: int, rho: float, share: int, state: KeyState
) -> None:
    if path.startswith("file:"):
        return
    text = format_record(
        key_id="2026-11",
        unit=TOKENS,
        secret=path,
        context_width=width,
        rho=rho,
        account_share_q16=share,
        state=state,
    )
    table: dict[str, Any] = tomllib.loads(KEYS_HEADER + text)
    assert table == {
        "schema": 1,
        "key": [
            {
                "id": "2026-11",
                "unit": TOKENS,
                "context_width": width,
                "scheme": "gumbel-copula",
                "rho": rho,
                "account_share_q16": share,
                "secret": f"file:{path}",
                "state": state.value,
            }
        ],
    }


@pytest.mark.parametrize("key_id", ['quo"te', "back\\slash", "\x7f\x01", "é", "タ"])
def test_any_id_is_rendered_as_toml(key_id: str) -> None:
    text = format_record(key_id=key_id, unit="words/v1", secret="k.key")  # noqa: S106 - a path
    assert tomllib.loads(text)["key"][0]["id"] == key_id


def test_rendering_refuses_what_loading_would() -> None:
    with pytest.raises(KeysError, match="key id"):
        format_record(key_id="", unit="words/v1", secret="k.key")  # noqa: S106 - a path
    with pytest.raises(KeysConfigError, match="unit"):
        format_record(key_id="k", unit="words", secret="k.key")  # noqa: S106 - a path
    for path in ("", "file:k.key"):
        with pytest.raises(KeysConfigError, match="bare file path"):
            format_record(key_id="k", unit="words/v1", secret=path)
