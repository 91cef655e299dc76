"""Token ids in range, contexts in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.errors import TokenIdError
from watermark.seeding import as_token_ids, context_windows

LAST = 2**32 - 2


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64, ">u4", ">i8"]
)
def test_integers_of_every_kind_are_taken(dtype: Any) -> None:
    found = as_token_ids(np.array([0, 5, 100], dtype))
    assert found.dtype == np.dtype("<u4")
    assert found.flags.c_contiguous
    assert found.tolist() == [0, 5, 100]


@given(st.lists(st.integers(0, LAST), max_size=20))
def test_ids_up_to_the_last_are_kept(ids: list[int]) -> None:
    assert as_token_ids(ids).tolist() == ids
    assert as_token_ids([*ids, LAST]).tolist()[-1] == LAST
    assert as_token_ids(np.array([*ids, LAST], np.uint32)).tolist()[-1] == LAST


@pytest.mark.parametrize(
    "tokens",
    [
        [2**32 - 1],
        np.array([2**32 - 1], np.uint32),
        [2**32],
        [2**63],
        [2**70],
        [-1],
        [-1, 2**63],
        np.array([-1], np.int8),
        [1.0],
        np.array([1.5]),
        [[1, 2], [3, 4]],
        np.zeros((1, 2), np.uint32),
        np.array(7),
        [True],
        ["1"],
        [None],
    ],
)
def test_anything_else_is_refused(tokens: Any) -> None:
    with pytest.raises(TokenIdError):
        as_token_ids(tokens)


def test_nothing_is_nothing() -> None:
    assert as_token_ids([]).dtype == np.uint32
    assert len(as_token_ids([])) == 0


def test_what_has_the_form_is_not_copied() -> None:
    tokens = np.arange(5, dtype="<u4")
    assert as_token_ids(tokens) is tokens
    assert as_token_ids(np.arange(10, dtype="<u4")[::2]).flags.c_contiguous


@given(st.lists(st.integers(0, LAST), max_size=12), st.integers(1, 4))
def test_windows_are_the_tokens_before(ids: list[int], width: int) -> None:
    found = context_windows(as_token_ids(ids), width)
    expected = [ids[i - width : i] for i in range(width, len(ids))]
    assert found.shape == (len(expected), width)
    assert found.tolist() == expected
