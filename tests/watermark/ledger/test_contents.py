"""Contents: the streams of seeding, each once; tokens there and back; data keys that go."""

from __future__ import annotations

import secrets
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.errors import LedgerConfigError, LedgerFileError, TokenIdError
from watermark.keys import LABEL_CONTEXT, KeyRecord, SecretKey
from watermark.ledger import (
    Delivered,
    FileName,
    Pseudonyms,
    Vault,
    fingerprints,
    load_settings,
    pack_tokens,
    unpack_fingerprints,
    unpack_tokens,
)
from watermark.ledger.contents import _sort_each
from watermark.ledger.headers import NO_DIGEST, Header, open_header, sign_header
from watermark.ledger.rows import Gap
from watermark.log import NoteSigner
from watermark.seeding import ContextPRF, KeyedUniforms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

tokens = st.lists(st.integers(0, 6), max_size=40)
ids = st.lists(st.integers(0, 2**32 - 2), max_size=20)
SECRET = SecretKey("ledger", b"s" * 32)


def keyed(width: int, name: str = "k") -> KeyedUniforms:
    secret = SecretKey(name, name.encode() * 32)
    return KeyedUniforms(
        KeyRecord(key_id=name, unit="words/v1", context_width=width, secret=secret)
    )


def delivered(
    ids: Sequence[int] | NDArray[Any], earlier: frozenset[tuple[int, ...]] = frozenset()
) -> Delivered:
    return Delivered(tokens=list(ids), units=lambda: ids, earlier=earlier)


def streams_one_by_one(one: KeyedUniforms, contexts: set[tuple[int, ...]]) -> list[int]:
    """Return what the specification says, a context at a time."""
    prf = ContextPRF(one.record.secret.subkey(LABEL_CONTEXT, 16))
    return sorted(int(prf.evaluate(np.array([c], np.uint32))[0][0]) for c in contexts)


@given(st.lists(st.lists(tokens, min_size=1, max_size=3), max_size=4), st.integers(1, 4))
def test_fingerprints_are_the_streams_of_new_contexts(
    answers: list[list[list[int]]], width: int
) -> None:
    keys = [keyed(width), keyed(width, "l")]
    earlier = frozenset({(1,) * width, (2,) * width})
    forms = (list, tuple, np.array)  # of ids, as upstreams and tokenizers give them
    asked = [
        (keys[place % 2], [delivered(forms[place % 3](choice), earlier) for choice in answer])
        for place, answer in enumerate(answers)
    ]
    found = fingerprints(asked)
    for (one, _), answer, streams in zip(asked, answers, found, strict=True):
        contexts = {
            tuple(choice[i - width : i]) for choice in answer for i in range(width, len(choice))
        }
        assert streams.tolist() == streams_one_by_one(one, contexts - earlier)
        assert unpack_fingerprints(streams.tobytes()).tolist() == streams.tolist()


@given(st.lists(st.one_of(st.integers(0, 9), st.sampled_from([700, 70_000])), max_size=12))
def test_each_run_is_sorted_by_itself(lengths: list[int]) -> None:
    """Whatever the lengths are: long ones beside short ones share no table."""
    streams = np.random.default_rng(0).integers(0, 1 << 63, sum(lengths), np.uint64) << np.uint64(1)
    bounds = np.cumsum([0, *lengths])
    expected = [np.sort(streams[a:b]) for a, b in pairwise(bounds.tolist())]
    _sort_each(streams, bounds)
    for run, (a, b) in zip(expected, pairwise(bounds.tolist()), strict=True):
        assert (streams[a:b] == run).all()


@pytest.mark.parametrize("bad", [[-1], [2**32 - 1], [2**32], [0.5], np.array([2**32 - 1])])
def test_what_is_no_token_id_is_refused(bad: Any) -> None:
    with pytest.raises(TokenIdError):
        fingerprints([(keyed(2), [delivered([1, 2, 3]), delivered(bad)])])
    with pytest.raises(TokenIdError):
        pack_tokens([[1, 2, 3], bad])


@given(st.lists(ids, max_size=4))
def test_tokens_come_back(choices: list[list[int]]) -> None:
    packed = pack_tokens(choices)
    assert [one.tolist() for one in unpack_tokens(packed)] == choices
    if any(choices):
        with pytest.raises(LedgerFileError, match="cut off"):
            unpack_tokens(packed[: -4 * len(choices[-1]) or None][:-4] + b"\xff\xff\0\0")


@given(st.text("aZ0.-", max_size=20), st.integers(0, 99999))
def test_names_of_files_come_back(rest: str, number: int) -> None:
    name = FileName(f"n{rest}", number, number + 1)
    assert FileName.parse(str(name)) == name
    assert FileName.parse(f"{name}-wal") is None


@given(st.integers(1, 10**6), st.text(max_size=5), st.integers(0, 2**53))
def test_headers_come_back(number: int, detail: str, time_us: int) -> None:
    signer = NoteSigner("x.invalid", b"e" * 32)
    header = Header(
        node="n",
        number=number,
        previous=NO_DIGEST,
        segment="a" * 64,
        n_bytes=1,
        root="b" * 64,
        rows=1,
        begins=1,
        ends=0,
        since_us=time_us,
        until_us=time_us,
        sealed_us=time_us,
        files=(),
        heads={"0": 1},
        gaps=(Gap(cause="write-error", detail=detail),),
    )
    signed = sign_header(header, signer)
    assert open_header(signed.note, signer.verifier) == signed


def test_a_vault_forgets_what_another_process_erased(tmp_path: Path) -> None:
    path = tmp_path / "accounts.vault"
    one, other = (Vault(path, SECRET, secrets.token_bytes) for _ in range(2))
    sealed = one.seal(b"a" * 16, b"r" * 16, b"text")
    assert other.open(b"a" * 16, b"r" * 16, sealed) == b"text"
    assert other.open(b"a" * 16, b"q" * 16, sealed) is None  # of another reply
    assert other.open(b"b" * 16, b"r" * 16, sealed) is None  # of another account
    wrapped = path.read_bytes()
    assert other.erase(b"a" * 16, at_us=7)
    assert one.open(b"a" * 16, b"r" * 16, sealed) is None
    again = one.seal(b"a" * 16, b"r" * 16, b"more")
    assert one.open(b"a" * 16, b"r" * 16, sealed) is None
    assert other.open(b"a" * 16, b"r" * 16, again) == b"more"
    assert one.erased() == {b"a" * 16: 7}
    for vault in (one, other):
        vault.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"text" not in wrapped


def test_an_erased_key_is_not_left_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "accounts.vault"
    vault = Vault(path, SECRET, secrets.token_bytes)
    vault.seal(b"a" * 16, b"r" * 16, b"text")
    wrapped = vault._db.execute("SELECT wrapped FROM keys").get
    assert wrapped in path.read_bytes()
    vault.erase(b"a" * 16, at_us=7)
    vault.close()
    assert wrapped not in path.read_bytes()


def test_a_vault_belongs_to_its_secret(tmp_path: Path) -> None:
    path = tmp_path / "accounts.vault"
    vault = Vault(path, SECRET, secrets.token_bytes)
    vault.seal(None, b"r" * 16, b"text")
    vault.close()
    other = Vault(path, SecretKey("ledger", b"t" * 32), secrets.token_bytes)
    with pytest.raises(LedgerFileError, match="another secret"):
        other.seal(None, b"r" * 16, b"text")
    other.close()


def test_pseudonyms_tell_apart_and_say_nothing() -> None:
    names, others = Pseudonyms(SECRET), Pseudonyms(SecretKey("ledger", b"t" * 32))
    assert names.of_account("ada") == Pseudonyms(SECRET).of_account("ada")
    found = {
        names.of_account("ada"),
        names.of_account("bob"),
        names.of_conversation(b"ada"),
        others.of_account("ada"),
    }
    assert len(found) == 4
    assert {len(one) for one in found} == {16}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 2\n", "schema"),
        ("schema = 1\nsecret = 'x'\nverifier = 'x'\n", "key string"),
        ("schema = 1\n", "missing required field"),
        ("= 1\n", "LEDGER.toml"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "LEDGER.toml"
    path.write_text(text)
    with pytest.raises(LedgerConfigError, match=message):
        load_settings(path)


def test_secrets_are_files(tmp_path: Path) -> None:
    path = tmp_path / "LEDGER.toml"
    verifier = NoteSigner("x.invalid", b"e" * 32).verifier
    path.write_text(f'schema = 1\nsecret = "abc"\nverifier = "{verifier}"\nnode = "a.b"\n')
    settings = load_settings(path)
    assert settings.node_or("machine.example.com") == "a.b"
    with pytest.raises(LedgerConfigError, match='write secret = "file:PATH"'):
        settings.secret()
    with pytest.raises(LedgerConfigError, match='write signer = "file:PATH"'):
        settings.signer()
