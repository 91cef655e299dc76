"""A commitment opens to the committed subkey, to no other, and opens no second one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watermark.keys.rings import NOW, record, secret_of
from watermark.errors import CommitmentError, KeyFileError, KeysError
from watermark.keys import SUBKEY_BYTES, SecretKey
from watermark.keys.commitment import (
    COMMITTED_LABELS,
    beacon_entry,
    beacon_secret,
    commitment_root,
    gap_entry,
    gap_key_id,
    key_entry,
    open_leaf,
    root_of_entry,
    verify_opening,
)
from watermark.keys.disclosure import disclose, format_disclosure, parse_disclosure

KEY = secret_of("2026-11")
ROOT = commitment_root(KEY)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(COMMITTED_LABELS))
def test_every_leaf_opens(secret: bytes, label: str) -> None:
    key = SecretKey("k", secret)
    shown = verify_opening(open_leaf(key, label), "k", commitment_root(key))
    assert shown == key.subkey(label, SUBKEY_BYTES[label])


@given(st.sampled_from(COMMITTED_LABELS), st.data())
def test_a_changed_bit_opens_nothing(label: str, data: st.DataObject) -> None:
    opening = open_leaf(KEY, label)
    field = data.draw(st.sampled_from(["subkey", "blinding"]))
    value = bytearray(getattr(opening, field))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changes: dict[str, Any] = {field: bytes(value)}
    changed = dataclasses.replace(opening, **changes)
    with pytest.raises(CommitmentError, match="not the one that was committed"):
        verify_opening(changed, "2026-11", ROOT)


def test_an_opening_is_of_one_key_and_one_label() -> None:
    opening = open_leaf(KEY, "context")
    with pytest.raises(CommitmentError):
        verify_opening(opening, "2026-12", ROOT)
    with pytest.raises(CommitmentError):
        verify_opening(opening, "2026-11", commitment_root(secret_of("2026-12")))
    for label in ("account-code", "other"):
        with pytest.raises(CommitmentError):
            verify_opening(dataclasses.replace(opening, label=label), "2026-11", ROOT)


def test_an_opening_holds_no_other_leaf() -> None:
    shown = format_disclosure(disclose(KEY)).decode()
    assert open_leaf(KEY, "context").subkey.hex() in shown
    blinding_key = KEY.subkey("commitment-blinding", 32)
    assert KEY.reveal().hex() not in shown
    assert blinding_key.hex() not in shown
    for label in COMMITTED_LABELS[1:]:
        opening = open_leaf(KEY, label)
        assert opening.subkey.hex() not in shown
        assert opening.blinding.hex() not in shown


def test_an_entry_holds_what_is_pinned_and_the_root() -> None:
    entry = key_entry(record("2026-11"), ROOT)
    assert root_of_entry(entry) == ROOT
    assert entry.decode().splitlines()[:3] == [
        "output-watermark-key-commitment/v1", "key-id: 2026-11", "unit: words/v1",
    ]  # fmt: skip
    for changes in ({"context_width": 3}, {"rho": 0.5}, {"account_share_q16": 1}):
        assert key_entry(record("2026-11", **changes), ROOT) != entry
    with pytest.raises(CommitmentError, match="commits to no key"):
        root_of_entry(gap_entry("2026-11", NOW, "x"))
    assert gap_key_id(gap_entry("2026-11", NOW, "x")) == "2026-11"
    assert gap_key_id(entry) is None
    with pytest.raises(CommitmentError, match="cannot stand in a line"):
        gap_entry("a\nb", NOW, "x")


def test_a_secret_of_a_beacon_is_bound_to_all_that_goes_in() -> None:
    operator = secret_of("operator")
    made = beacon_secret(operator, "2027-01", b"round 12")
    assert made == beacon_secret(operator, "2027-01", b"round 12")
    others = [
        beacon_secret(operator, "2027-01", b"round 13"),
        beacon_secret(operator, "2027-02", b"round 12"),
        beacon_secret(secret_of("other"), "2027-01", b"round 12"),
    ]
    assert made.reveal() not in {other.reveal() for other in others}
    entry = beacon_entry(operator, "2027-01", "drand 12")
    assert entry != beacon_entry(operator, "2027-01", "drand 13")
    assert made.reveal().hex() not in entry.decode()


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_disclosure(data: bytes) -> None:
    with pytest.raises(KeyFileError):
        parse_disclosure(data, path="f")


@given(st.data())
def test_one_flipped_bit_is_no_disclosure(data: st.DataObject) -> None:
    good = format_disclosure(disclose(KEY))
    assert format_disclosure(parse_disclosure(good, path="f")) == good
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(KeyFileError):
        parse_disclosure(bytes(changed), path="f")


def test_a_disclosed_key_verifies_and_commits_to_nothing() -> None:
    disclosure = parse_disclosure(format_disclosure(disclose(KEY)), path="f")
    assert disclosure.verify(ROOT).subkey("context", 16) == KEY.subkey("context", 16)
    with pytest.raises(CommitmentError):
        disclosure.verify(bytes(32))
    with pytest.raises(KeysError):
        commitment_root(disclosure.key)
