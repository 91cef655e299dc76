"""Engines' keys: files of their own form, records that only detect, every parameter checked."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.support.foreign import foreign_record
from watermark.errors import KeyFileError, KeysConfigError, KeysError
from watermark.keys import (
    KEYS_HEADER,
    ForeignKey,
    KeyRecord,
    KeyState,
    SecretKey,
    format_key_file,
    format_record,
    load_keys,
    parse_key_file,
    write_key_file,
)
from watermark.keys.history import _fields_of, _plain
from watermark.schemes import native_key

if TYPE_CHECKING:
    from pathlib import Path

FILE = b"""\
output-watermark-foreign-key/v1
key-id: vllm-2026
integers: 000000000000002a
sha256: 528790aee5737c75bc0b617f580adce5309111bfcab59851b686a45c3933c0f8
"""
TOKENIZER = "tokenizer:sha256:" + "0f" * 32


def test_exactly_one_file_stands_for_a_key() -> None:
    key = ForeignKey("vllm-2026", [42])
    data = format_key_file(key)
    assert data == FILE
    assert parse_key_file(data, path="x") == key
    for bit in range(0, 8 * len(data), 7):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KeyFileError):
            parse_key_file(bytes(damaged), path="x")
    for wrong in (data.upper(), data + b"\n", data.replace(b"2a", b"2A"), data.replace(b" ", b"")):
        with pytest.raises(KeyFileError):
            parse_key_file(wrong, path="x")


def test_the_longest_key_fits_a_file() -> None:
    key = ForeignKey("x" * 255, [2**64 - 1] * 32)
    assert len(format_key_file(key)) <= 1024
    assert parse_key_file(format_key_file(key), path="x") == key


@pytest.mark.parametrize("integers", [[], [1] * 33, [-1], [2**64]])
def test_integers_out_of_range_are_refused(integers: list[int]) -> None:
    with pytest.raises(KeysError):
        ForeignKey("k", integers)


def test_a_foreign_key_derives_nothing_and_shows_nothing() -> None:
    key = ForeignKey("k", [0x1234567890ABCDEF])
    assert repr(key) == "<ForeignKey 'k'>"
    assert key.integers == (0x1234567890ABCDEF,)
    assert not key.is_epoch_secret
    assert key != SecretKey("k", bytes(32))
    assert key.fingerprint != ForeignKey("k", [1]).fingerprint
    with pytest.raises(KeysError, match="engine's"):
        key.subkey("context", 16)
    with pytest.raises(KeysError, match="engine's"):
        key.reveal()
    with pytest.raises(TypeError):
        copy.copy(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)


@pytest.mark.parametrize(
    ("scheme", "parameters", "says"),
    [
        ("vllm-gumbel", {"alpha": 1.5}, "alpha = 1.5 is not 0 to 1"),
        ("vllm-gumbel", {"alpha": "0.1"}, "is not of type float"),
        ("vllm-gumbel", {"algorithm": "sbw"}, "is not one of gumbel, dual_key_gumbel"),
        ("vllm-gumbel", {"vocab_size": 3}, "has no parameter 'vocab_size'; it has algorithm"),
        ("hf-green-list", {}, "needs the parameter vocab_size"),
        ("hf-green-list", {"vocab_size": True}, "is not of type int"),
        ("hf-synthid", {"sampling_table_size": 1000}, "is not one of 2, 4"),
        ("gumbel-copula", {"alpha": 0.1}, "has no parameter 'alpha'; it has none"),
    ],
)
def test_parameters_are_checked(scheme: str, parameters: Any, says: str) -> None:
    with pytest.raises(KeysConfigError, match=says):
        KeyRecord(
            key_id="k",
            unit=TOKENIZER,
            scheme=scheme,
            context_width=1,
            state=KeyState.DETECT,
            parameters=tuple(parameters.items()),
            secret=ForeignKey("k", [1]),
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": KeyState.MARKING}, "only detect here; set state 'detect'"),
        (
            {"state": KeyState.MARKING, "scheme": "hf-synthid", "scope": "own"},
            "only detect here",
        ),
        ({"state": KeyState.SUSPENDED}, "only detect here"),
        ({"not_after": datetime(2026, 1, 1, tzinfo=UTC)}, "leave not_before and not_after out"),
        ({"account_share_q16": 9}, "carries no account"),
        ({"context_width": 65}, "choose 1 to 64"),
        ({"secret": SecretKey("k", bytes(32))}, "needs an engine's key file"),
        ({"secret": ForeignKey("k", [1, 2])}, "holds 2 integers, scheme 'vllm-gumbel' takes 1"),
        ({"scheme": "gumbel-copula", "state": KeyState.MARKING}, "needs our own key file"),
    ],
)
def test_a_record_only_detects(changes: dict[str, Any], says: str) -> None:
    fields: dict[str, Any] = {
        "key_id": "k",
        "unit": TOKENIZER,
        "scheme": "vllm-gumbel",
        "context_width": 4,
        "state": KeyState.DETECT,
        "secret": ForeignKey("k", [1]),
    }
    assert KeyRecord(**fields).is_foreign
    with pytest.raises(KeysConfigError, match=says):
        KeyRecord(**(fields | changes))


def test_a_keys_file_holds_both_kinds(tmp_path: Path) -> None:
    write_key_file(tmp_path / "own.key", SecretKey("own", bytes(range(32))))
    write_key_file(tmp_path / "engine.key", ForeignKey("engine", [42]))
    engine = format_record(
        key_id="engine",
        unit=TOKENIZER,
        secret="engine.key",  # noqa: S106 - a path
        scheme="vllm-gumbel",
        context_width=4,
        state=KeyState.DETECT,
        parameters=(("algorithm", "dual_key_gumbel"), ("alpha", 0.25)),
    )
    assert 'parameters = { algorithm = "dual_key_gumbel", alpha = 0.25 }' in engine
    assert "rho" not in engine
    own = format_record(key_id="own", unit=TOKENIZER, secret="own.key")  # noqa: S106
    path = tmp_path / "KEYS.toml"
    path.write_text(KEYS_HEADER + own + engine.replace("context_width = 4\n", ""))
    now = datetime(2026, 11, 1, tzinfo=UTC)
    ring = load_keys(path, now=now)
    (record,) = ring.by_id("engine")
    assert record.context_width == 4  # the engine's default
    assert (record.parameter("alpha"), record.parameter("algorithm")) == (0.25, "dual_key_gumbel")
    assert ring.marking(TOKENIZER, now=now).key_id == "own"
    assert {one.key_id for one in ring.detecting(now)} == {"own", "engine"}


def test_the_history_pins_the_parameters() -> None:
    record = foreign_record("hf-green-list", [9], vocab_size=1000)
    assert record.regress_from(record, datetime(2026, 1, 1, tzinfo=UTC)) == ""
    other = foreign_record("hf-green-list", [9], vocab_size=1001)
    assert "vocab_size" in other.regress_from(record, datetime(2026, 1, 1, tzinfo=UTC))
    assert record.mark_parameters != other.mark_parameters
    line = json.loads(msgspec.json.encode(_plain(record)))
    assert line["parameters"] == {"vocab_size": 1000}
    assert _fields_of(line) == record.public


def test_an_engines_key_marks_in_a_scope_of_its_own_and_without_dates() -> None:
    record = KeyRecord(
        key_id="k",
        unit=TOKENIZER,
        scheme="vllm-gumbel",
        context_width=4,
        scope="engine",
        secret=ForeignKey("k", [1]),
    )
    assert record.claims
    assert not record.is_copula
    with pytest.raises(KeysConfigError, match="leave not_before and not_after out"):
        replace(record, not_after=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(KeysConfigError, match="in a scope of its own"):
        replace(record, scope="default")


def test_an_epoch_marks_through_sglang_by_its_subkey() -> None:
    secret = SecretKey("k", b"k" * 32)
    record = KeyRecord(key_id="k", unit=TOKENIZER, scheme="sglang-native", secret=secret)
    assert not record.is_foreign
    assert native_key(secret) == int(secret.subkey("native-sglang", 8).hex(), 16)
    with pytest.raises(KeysConfigError, match="marks token ids"):
        replace(record, unit="words/v1")
    with pytest.raises(KeysConfigError, match="carries no account"):
        replace(record, account_share_q16=5)
