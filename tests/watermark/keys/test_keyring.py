"""A ring finds its keys, and cannot be made of records that contradict each other."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from watermark.errors import KeysConfigError
from watermark.keys import KeyRecord, KeyRing, KeyState, SecretKey

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SECRETS = {key_id: SecretKey(key_id, key_id.encode() * 32) for key_id in "abc"}
TOKENS = f"tokenizer:sha256:{'0f' * 32}"


def record(key_id: str, unit: str = "words/v1", state: KeyState = KeyState.MARKING) -> KeyRecord:
    return KeyRecord(key_id=key_id, unit=unit, state=state, secret=SECRETS[key_id])


def test_a_ring_finds_what_marks_and_what_detects() -> None:
    old = record("a", state=KeyState.DETECT)
    ring = KeyRing((old, record("b"), record("b", TOKENS)))
    assert ring.marking("words/v1", now=NOW) == record("b")
    assert ring.marking(TOKENS, now=NOW) == record("b", TOKENS)
    assert ring.by_id("a") == (old,)
    assert ring.by_id("b") == (record("b"), record("b", TOKENS))
    assert ring.by_id("z") == ()
    assert ring.units == ("words/v1", TOKENS)
    assert list(ring) == list(ring.records)
    assert len(ring) == 3


def test_a_unit_that_no_key_marks_is_an_error_with_the_remedy() -> None:
    ring = KeyRing((record("a", state=KeyState.DETECT),))
    with pytest.raises(KeysConfigError, match="no key marks unit 'words/v1'; add a record"):
        ring.marking("words/v1", now=NOW)


def test_records_that_contradict_each_other_make_no_ring() -> None:
    with pytest.raises(KeysConfigError, match="two records"):
        KeyRing((record("a"), record("a")))
    with pytest.raises(KeysConfigError, match="both mark"):
        KeyRing((record("a"), record("b")))
    with pytest.raises(KeysConfigError, match="two secrets"):
        KeyRing(
            (
                record("a"),
                KeyRecord(key_id="a", unit=TOKENS, secret=SecretKey("a", bytes(32))),
            )
        )
    with pytest.raises(KeysConfigError, match="one secret"):
        KeyRing(
            (
                record("a"),
                KeyRecord(key_id="z", unit=TOKENS, secret=SecretKey("z", b"a" * 32)),
            )
        )
    with pytest.raises(KeysConfigError, match="no key is given"):
        KeyRing(())


def test_equal_secrets_of_one_id_are_one_secret() -> None:
    twin = KeyRecord(key_id="a", unit=TOKENS, secret=SecretKey("a", b"a" * 32))
    assert len(KeyRing((record("a"), twin))) == 2


def test_a_record_refuses_the_secret_of_another_key() -> None:
    with pytest.raises(KeysConfigError, match="given the secret of key 'b'"):
        KeyRecord(key_id="a", unit="words/v1", secret=SECRETS["b"])


def test_records_and_rings_are_values_that_show_no_secret() -> None:
    ring = KeyRing((record("a"),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        ring.records[0].rho = 0.5  # type: ignore[misc]
    assert hash(ring) == hash(KeyRing((record("a"),)))
    assert "61" * 8 not in repr(ring)
    assert "aaaa" not in repr(ring)
    assert "secret" not in repr(ring)
