"""The account channel: its share of the positions, and the codes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.drive import make_record
from watermark.seeding import AccountCode, code_indices, is_account_channel
from watermark.seeding.channel import CODE_POSITIONS

SECRET = make_record(0).secret
ALL = np.arange(CODE_POSITIONS)


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
