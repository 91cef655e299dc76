"""The account channel: its share of the positions, and the codes."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.drive import make_record
from watermark.errors import SchemeParameterError
from watermark.seeding import (
    CODE_POSITIONS,
    AccountCode,
    AccountCodes,
    code_indices,
    is_account_channel,
)
from watermark.seeding.channel import AccountTags

SECRET = make_record(0).secret
ALL = np.arange(CODE_POSITIONS)


def nfc(text: str) -> str:
    """Return a text that can be an account's name."""
    return unicodedata.normalize("NFC", text.encode(errors="replace").decode())


@pytest.mark.parametrize("share", [0, 1, 8192, 65_535, 65_536])
def test_the_share_is_exact_over_all_low_bits(share: int) -> None:
    routes = ALL.astype(np.uint64) | np.uint64(0xABCD_0000)
    assert is_account_channel(routes, share).sum() == share


@given(st.integers(0, 2**64 - 1), st.integers(0, 65_536))
def test_the_channel_reads_the_low_bits_and_the_index_the_next(route: int, share: int) -> None:
    routes = np.array([route], np.uint64)
    assert is_account_channel(routes, share)[0] == ((route & 0xFFFF) < share)
    assert code_indices(routes)[0] == route >> 16 & 0xFFFF


def test_codes_are_balanced_and_far_apart() -> None:
    bits = [AccountCode(SECRET, name).bits(ALL) for name in ("a", "b", "acct-1")]
    half = CODE_POSITIONS / 2
    spread = 5 * np.sqrt(CODE_POSITIONS) / 2
    for code in bits:
        assert abs(code.sum() - half) < spread
    assert abs((bits[0] ^ bits[1]).sum() - half) < spread
    assert abs((bits[1] ^ bits[2]).sum() - half) < spread


def test_the_key_counts() -> None:
    other = AccountCode(make_record(1).secret, "a").bits(ALL)
    differing = (AccountCode(SECRET, "a").bits(ALL) ^ other).sum()
    assert abs(differing - CODE_POSITIONS / 2) < 5 * np.sqrt(CODE_POSITIONS) / 2


@settings(max_examples=20)
@given(st.lists(st.integers(0, 65_535), min_size=1, max_size=30))
def test_bits_do_not_depend_on_the_batch(indices: list[int]) -> None:
    code = AccountCode(SECRET, "a")
    whole = code.bits(ALL)
    assert code.bits(np.array(indices)).tolist() == whole[indices].tolist()
    assert code.bits(np.array(indices, np.uint16)).tolist() == whole[indices].tolist()


def test_a_code_shows_nothing() -> None:
    assert repr(AccountCode(SECRET, "a")) == "<AccountCode>"


@settings(max_examples=5)
@given(st.lists(st.text(min_size=1, max_size=20).map(nfc), min_size=1, max_size=5, unique=True))
def test_many_codes_are_the_single_ones(names: list[str]) -> None:
    codes = AccountCodes(SECRET, names)
    assert len(codes) == len(names)
    single = np.array([AccountCode(SECRET, name).bits(ALL) for name in names])
    for block in (0, 1, 255, 511):
        words = codes.words(block)
        bits = words[:, :, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
        flat = bits.transpose(1, 0, 2).reshape(len(names), 128)
        assert (flat == single[:, 128 * block : 128 * (block + 1)]).all()


@pytest.mark.parametrize("name", ["", "e\u0301", "x" * 256, "\ud800"])
def test_a_name_that_has_no_tag_is_refused(name: str) -> None:
    for make in (AccountCode, lambda secret, one: AccountCodes(secret, [one])):
        with pytest.raises(SchemeParameterError, match="names no account"):
            make(SECRET, name)


def test_codes_show_nothing() -> None:
    assert repr(AccountCodes(SECRET, ["a", "b"])) == "<AccountCodes of 2>"
    assert repr(AccountTags(SECRET)) == "<AccountTags>"
