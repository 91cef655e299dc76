"""Each context is marked once a reply; repeated ones take private randomness."""

from __future__ import annotations

import numpy as np
import pytest

from proxy.sampling.candidates import CandidateList
from proxy.sampling.reply import Reply, contexts_of
from tests.support.drive import make_record, make_reply
from watermark.schemes import scores_from_levels
from watermark.seeding import KeyedUniforms, as_token_ids

WHOLE = CandidateList(np.arange(4, dtype=np.uint32), np.array([0.4, 0.3, 0.2, 0.1]), 0.0)


def take(reply: Reply, token: int) -> None:
    reply.spend(tuple(reply.tokens), (token,))
    reply.extend((token,))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_the_first_tokens_have_no_context(width: int) -> None:
    reply = make_reply(0, max_tokens=None, width=width)
    for token in range(width):
        assert reply.stream() is None
        take(reply, token)
    assert reply.stream() is not None


def test_a_repeated_context_is_not_marked_again() -> None:
    reply = make_reply(0, max_tokens=None, width=2)
    marked = []
    for token in (1, 2, 3, 1, 2, 4, 1, 2):
        marked.append(reply.stream() is not None)
        take(reply, token)
    # positions 2, 3, 4 are new; (1, 2) at 5 is a repeat; (2, 4), (4, 1) are new
    assert marked == [False, False, True, True, True, False, True, True]
    assert reply.stream() is None


def test_contexts_of_earlier_turns_are_not_marked() -> None:
    keyed = KeyedUniforms(make_record(0, width=2))
    turns = [as_token_ids([1, 2, 3]), as_token_ids([7]), as_token_ids([])]
    earlier = contexts_of(turns, 2)
    reply = Reply(keyed, np.random.default_rng(0), max_tokens=None, earlier=earlier)
    for token in (1, 2):
        take(reply, token)
    assert reply.stream() is None
    take(reply, 3)
    # (2, 3) closed the earlier turn: nothing followed it there, so nothing was marked.
    assert reply.stream() is not None


def test_private_positions_use_no_keyed_uniform() -> None:
    """With one key and fresh private randomness, a repeated context has the plain law."""
    reply = make_reply(1, max_tokens=None, rho=1.0)
    take(reply, 3)
    keyed = [reply.choose(WHOLE, reply.stream()) for _ in range(20)]
    assert len(set(keyed)) == 1
    take(reply, 3)
    assert reply.stream() is None
    private = [reply.choose(WHOLE, None) for _ in range(1500)]
    counts = np.bincount([token for token in private if token is not None], minlength=4)
    assert abs(counts / 1500 - WHOLE.weights).max() < 5 * 0.5 / np.sqrt(1500)


def test_rest_may_win() -> None:
    reply = make_reply(2, max_tokens=None)
    short = CandidateList(WHOLE.tokens[:2], WHOLE.weights[:2], 0.3)
    outside = sum(reply.choose(short, None) is None for _ in range(1500))
    assert abs(outside / 1500 - 0.3) < 5 * 0.5 / np.sqrt(1500)


def test_room_and_bounds() -> None:
    reply = make_reply(3, max_tokens=5)
    reply.extend((1, 2))
    assert (reply.room(9), reply.room(2)) == (3, 2)
    reply.bound(9)
    assert reply.room(9) == 3
    reply.bound(3)
    assert reply.room(9) == 1
    take(reply, 1)
    assert reply.is_full
    free = make_reply(3, max_tokens=None)
    assert free.room(7) == 7
    assert not free.is_full
    free.bound(0)
    assert free.is_full


def test_a_score_is_the_detectors() -> None:
    reply = make_reply(4, max_tokens=None, width=2)
    stream = KeyedUniforms(make_record(4, width=2)).at((5, 6))
    assert stream is not None
    expected = scores_from_levels(stream.levels(as_token_ids([7])))[0]
    assert reply.score((5, 6), 7) == expected


def test_account_positions_of_nobody_are_not_keyed() -> None:
    keyed = KeyedUniforms(make_record(5, account_share_q16=65536))
    reply = Reply(keyed, np.random.default_rng(0), max_tokens=None)
    take(reply, 1)
    assert reply.stream() is None
    assert reply.score((1,), 2) is None


def test_upstream_seeds_only_where_they_must_repeat() -> None:
    assert make_reply(6, max_tokens=None).upstream_seed() is None
    keyed = KeyedUniforms(make_record(6))
    seeds = []
    for _ in range(2):
        reply = Reply(keyed, np.random.default_rng(9), max_tokens=None, repeats_seed=True)
        seeds.append([reply.upstream_seed() for _ in range(5)])
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 5
