"""What a text says about the code positions, against a plain loop over the specification."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.drive import make_record
from watermark.errors import TextTooShortError, TokenIdError
from watermark.keys import LABEL_CONTEXT
from watermark.seeding import ContextPRF, uniform_levels
from watermark.tracing import code_sums
from watermark.tracing.codes import SCORES

RECORD = make_record(3, width=2, account_share_q16=1 << 15)
REPLIES = st.lists(st.lists(st.integers(0, 5), max_size=30), min_size=1, max_size=4)


def by_hand(replies: list[list[int]]) -> tuple[dict[int, int], int]:
    """Return the sum of every code position, and the number of pairs."""
    prf = ContextPRF(RECORD.secret.subkey(LABEL_CONTEXT, 16))
    sums: dict[int, int] = defaultdict(int)
    pairs = set()
    for reply in replies:
        contexts = set()
        for place in range(2, len(reply)):
            context, token = (reply[place - 2], reply[place - 1]), reply[place]
            if context in contexts:
                continue
            contexts.add(context)
            streams, routes = prf.evaluate(np.array([context], np.uint32))
            route = int(routes[0])
            if route & 0xFFFF >= RECORD.account_share_q16 or (context, token) in pairs:
                continue
            pairs.add((context, token))
            (level,) = uniform_levels(streams[0], np.array([token], np.uint32)).tolist()
            sums[route >> 16 & 0xFFFF] += 2 * (level * 8 >> 52) - 7
    return {position: total for position, total in sums.items() if total}, len(pairs)


@settings(max_examples=50)
@given(REPLIES)
def test_every_pair_counts_once(replies: list[list[int]]) -> None:
    if not any(len(reply) > 2 for reply in replies):
        with pytest.raises(TextTooShortError, match="nothing to score"):
            code_sums(RECORD, replies)
        return
    found = code_sums(RECORD, replies)
    sums, n_pairs = by_hand(replies)
    assert dict(zip(found.positions.tolist(), found.sums.tolist(), strict=True)) == sums
    assert found.positions.tolist() == sorted(sums)
    assert (found.n_scored, found.n_tokens) == (n_pairs, sum(map(len, replies)))


def test_the_score_is_antisymmetric() -> None:
    assert (-SCORES[::-1] == SCORES).all()
    assert (np.diff(SCORES) > 0).all()


def test_a_copy_adds_nothing() -> None:
    reply = np.random.default_rng(0).integers(0, 99, 500).tolist()
    once, twice = code_sums(RECORD, [reply]), code_sums(RECORD, [reply, reply])
    assert once.n_scored == twice.n_scored
    assert once.sums.tolist() == twice.sums.tolist()


def test_a_key_without_a_share_has_nothing_to_say() -> None:
    found = code_sums(make_record(0), [[1, 2, 3, 4]])
    assert (found.n_scored, found.sums.tolist()) == (0, [])


def test_sums_are_not_shown_and_ids_are_checked() -> None:
    found = code_sums(RECORD, [[1, 2, 3, 4, 5, 6]])
    assert repr(found) == f"<CodeSums of {found.n_scored} pairs under 'k'>"
    with pytest.raises(TokenIdError):
        code_sums(RECORD, [[1, 2, -3]])
