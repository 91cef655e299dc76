"""Equal requests draw equal private randomness; nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.drive import make_record
from watermark.seeding import private_seed

SECRET = make_record(0).secret
DIGEST = bytes(32)


@given(st.integers(), st.integers())
def test_the_clients_seed_counts(one: int, two: int) -> None:
    seeds = [private_seed(SECRET, seed=seed, request_digest=DIGEST) for seed in (one, two)]
    assert (seeds[0] == seeds[1]) == (one == two)
    assert all(0 <= seed < 2**256 for seed in seeds)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 255))
def test_the_request_counts(digest: bytes, bit: int) -> None:
    changed = bytearray(digest)
    changed[bit // 8] ^= 1 << bit % 8
    one, two = (
        private_seed(SECRET, seed=1, request_digest=each) for each in (digest, bytes(changed))
    )
    assert one != two


def test_the_key_counts() -> None:
    seeds = {private_seed(make_record(i).secret, seed=1, request_digest=DIGEST) for i in range(20)}
    assert len(seeds) == 20


def test_a_digit_cannot_move_from_the_seed_to_the_request() -> None:
    one = private_seed(SECRET, seed=12, request_digest=b"3" + bytes(31))
    two = private_seed(SECRET, seed=1, request_digest=b"23" + bytes(31))
    assert one != two
