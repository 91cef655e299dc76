"""One position at a time is the same as all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.drive import make_record
from watermark.errors import SchemeParameterError, TokenIdError
from watermark.keys import LABEL_CONTEXT
from watermark.seeding import (
    AccountCode,
    ContextPRF,
    KeyedUniforms,
    as_token_ids,
    code_indices,
    context_windows,
    flip_levels,
    is_account_channel,
    levels_to_uniforms,
    uniform_levels,
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 2**32 - 2), min_size=6, max_size=20),
    st.integers(1, 4),
    st.sampled_from([0, 20_000, 65_536]),
    st.sampled_from([None, "acct-1", "ä"]),
)
def test_single_positions_are_the_batchs(
    ids: list[int], width: int, share: int, account: str | None
) -> None:
    record = make_record(1, width=width, account_share_q16=share)
    keyed = KeyedUniforms(record, account=account)
    tokens = as_token_ids(ids)
    contexts = context_windows(tokens, width)
    prf = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16))
    streams, routes = prf.evaluate(contexts)
    levels = uniform_levels(streams, tokens[width:])
    in_account = is_account_channel(routes, share)
    if account is not None:
        flips = in_account & AccountCode(record.secret, account).bits(code_indices(routes))
        levels = np.where(flips, flip_levels(levels), levels)
    for i, context in enumerate(contexts.tolist()):
        stream = keyed.at(context)
        if in_account[i] and account is None:
            assert stream is None
            continue
        assert stream is not None
        assert stream.levels(tokens[width + i : width + i + 1])[0] == levels[i]
        assert stream.uniforms(tokens[width + i :])[0] == levels_to_uniforms(levels)[i]


def test_the_reprs_show_nothing() -> None:
    keyed = KeyedUniforms(make_record(0), account="somebody")
    assert repr(keyed) == "<KeyedUniforms 'k'>"
    assert repr(keyed.at([1])) == "<ContextStream>"


@pytest.mark.parametrize("context", [[2**32 - 1], [-1], [0.5]])
def test_contexts_out_of_range_are_refused(context: list[int]) -> None:
    with pytest.raises(TokenIdError):
        KeyedUniforms(make_record(0)).at(context)


@pytest.mark.parametrize("account", ["", "x" * 256, "e\u0301"])
def test_account_names_out_of_form_are_refused(account: str) -> None:
    with pytest.raises(SchemeParameterError):
        KeyedUniforms(make_record(0), account=account)
