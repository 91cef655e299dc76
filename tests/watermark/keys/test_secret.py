"""Subkeys agree with the vectors; a secret shows, copies and pickles nothing."""

from __future__ import annotations

import copy
import hmac
import json
import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from watermark.errors import KeysError
from watermark.keys import (
    LABEL_ACCOUNT_CODE,
    LABEL_ACCOUNT_TAG,
    LABEL_CONTEXT,
    LABEL_NATIVE_SGLANG,
    SUBKEY_BYTES,
    SecretKey,
)

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "seeding.json").read_text(encoding="utf-8")
)
SECRET = bytes(range(32))


def aes(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES128(key), modes.ECB()).encryptor()  # noqa: S305 - one block
    return encryptor.update(block) + encryptor.finalize()


def key_of(vector: dict[str, Any]) -> SecretKey:
    return SecretKey(vector["key_id"], bytes.fromhex(vector["secret"]))


@pytest.mark.parametrize("vector", VECTORS["positions"])
def test_the_context_subkey_gives_the_vectors_stream_and_route(vector: dict[str, Any]) -> None:
    words = (vector["context"] + [0xFFFFFFFF] * 4)[:4]
    block = b"".join(word.to_bytes(4, "little") for word in words)
    out = aes(key_of(vector).subkey(LABEL_CONTEXT, 16), block)
    assert int.from_bytes(out[:8], "little") == int(vector["stream"], 16)
    assert int.from_bytes(out[8:], "little") == int(vector["route"], 16)


def test_the_account_subkeys_give_the_vectors_code_bits() -> None:
    checked = 0
    for vector in VECTORS["positions"]:
        if vector["code_bit"] is None:
            continue
        key = key_of(vector)
        tag = hmac.digest(key.subkey(LABEL_ACCOUNT_TAG, 32), vector["account"].encode(), sha256)[:8]
        index = vector["code_index"]
        block = aes(key.subkey(LABEL_ACCOUNT_CODE, 16), tag + (index // 128).to_bytes(8, "little"))
        assert block[index % 128 // 8] >> (index % 8) & 1 == vector["code_bit"]
        checked += 1
    assert checked >= 8


def test_labels_ids_and_secrets_separate_the_subkeys() -> None:
    keys = [SecretKey("a", SECRET), SecretKey("b", SECRET), SecretKey("a", bytes(32))]
    subkeys = {key.subkey(label, size) for key in keys for label, size in SUBKEY_BYTES.items()}
    assert len(subkeys) == len(keys) * len(SUBKEY_BYTES)
    assert len(keys[0].subkey(LABEL_NATIVE_SGLANG, 8).hex()) == 16


@pytest.mark.parametrize("label", ["", "Context", "a b", "context\n", "é", "a1"])
def test_a_malformed_label_is_refused(label: str) -> None:
    with pytest.raises(KeysError, match="label"):
        SecretKey("k", SECRET).subkey(label, 16)


@pytest.mark.parametrize(("label", "length"), [("context", 15), ("other", 0), ("other", 8161)])
def test_a_length_that_is_not_the_labels_is_refused(label: str, length: int) -> None:
    with pytest.raises(KeysError, match="bytes"):
        SecretKey("k", SECRET).subkey(label, length)


def test_a_label_of_ones_own_is_derived() -> None:
    assert len(SecretKey("k", SECRET).subkey("my-own-use", 48)) == 48


@pytest.mark.parametrize("key_id", ["", "x" * 256, "é" * 128, "e\u0301", "\ud800"])
def test_a_malformed_key_id_is_refused(key_id: str) -> None:
    with pytest.raises(KeysError, match="key id"):
        SecretKey(key_id, SECRET)


@pytest.mark.parametrize("key_id", ["k", "x" * 255, "epoch/é", "é" * 127])
def test_a_key_id_of_the_specified_form_is_taken(key_id: str) -> None:
    assert SecretKey(key_id, SECRET).key_id == key_id


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused_without_being_shown(length: int) -> None:
    with pytest.raises(KeysError, match="exactly 32") as caught:
        SecretKey("k", b"\xaa" * length)
    assert "aa" not in str(caught.value)


def test_nothing_printable_holds_the_secret() -> None:
    key = SecretKey("2026-11", SECRET)
    shown = [repr(key), str(key), f"{key}", f"{key!r:>40}", "".join(map(str, [key])), ascii(key)]
    assert repr(key) == "<SecretKey '2026-11'>"
    assert all(SECRET.hex() not in text and repr(SECRET) not in text for text in shown)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_never_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(SecretKey("k", SECRET), protocol=protocol)


def test_a_secret_is_never_copied_or_changed() -> None:
    key = SecretKey("k", SECRET)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never copied"):
            duplicate(key)
    with pytest.raises(TypeError, match="never pickled"):
        key.__getstate__()
    with pytest.raises(AttributeError, match="immutable"):
        key._secret = bytes(32)
    with pytest.raises(AttributeError, match="immutable"):
        del key._secret


def test_a_mutable_source_does_not_change_the_key() -> None:
    source = bytearray(SECRET)
    key = SecretKey("k", source)  # type: ignore[arg-type]
    source[0] ^= 1
    assert key.reveal() == SECRET


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_equality_is_that_of_id_and_secret(one: bytes, other: bytes) -> None:
    assert (SecretKey("k", one) == SecretKey("k", other)) is (one == other)
    assert SecretKey("k", one) != SecretKey("l", one)
    assert hash(SecretKey("k", one)) == hash(SecretKey("k", other))


def test_a_key_equals_nothing_but_a_key() -> None:
    assert SecretKey("k", SECRET) != SECRET
