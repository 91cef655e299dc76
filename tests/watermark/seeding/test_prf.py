"""The keyed function: every input counts, and the order of a batch does not."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.keys import LABEL_CONTEXT, SecretKey
from watermark.seeding import ContextPRF, as_token_ids, context_windows, pair_levels, pair_values
from watermark.seeding.prf import CHUNK_POSITIONS

KEY = bytes(range(16))
IDS = st.integers(0, 2**32 - 2)


def one(key: bytes, context: list[int]) -> tuple[int, int]:
    streams, routes = ContextPRF(key).evaluate(as_token_ids(context).reshape(1, -1))
    return int(streams[0]), int(routes[0])


@given(st.lists(IDS, min_size=1, max_size=4), st.data())
def test_every_word_of_the_context_counts(context: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(context) - 1))
    other = data.draw(IDS.filter(lambda value: value != context[place]))
    changed = [*context[:place], other, *context[place + 1 :]]
    before, after = one(KEY, context), one(KEY, changed)
    assert before[0] != after[0]
    assert before != one(bytes(16), context)


@given(st.lists(IDS, min_size=1, max_size=3))
def test_the_width_counts(context: list[int]) -> None:
    assert one(KEY, context) != one(KEY, [0, *context])
    assert one(KEY, context) != one(KEY, [*context, 0])


@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_a_batch_does_not_matter(
    pairs: list[tuple[int, int]], shuffler: object
) -> None:
    contexts = np.array(pairs, np.uint32)
    order = list(range(len(pairs)))
    shuffler.shuffle(order)  # type: ignore[attr-defined]
    prf = ContextPRF(KEY)
    streams, routes = prf.evaluate(contexts)
    shuffled_streams, shuffled_routes = prf.evaluate(contexts[order])
    assert (streams[order] == shuffled_streams).all()
    assert (routes[order] == shuffled_routes).all()


@pytest.mark.parametrize("count", [0, 1, CHUNK_POSITIONS - 1, CHUNK_POSITIONS, CHUNK_POSITIONS + 1])
@pytest.mark.parametrize("width", [1, 3, 4])
def test_chunks_meet_without_a_seam(count: int, width: int) -> None:
    tokens = np.random.default_rng(0).integers(0, 2**32 - 1, count + width, dtype=np.uint32)
    contexts = context_windows(tokens, width)[:count]
    streams, routes = ContextPRF(KEY).evaluate(contexts)
    blocks = np.full((count, 4), 0xFFFFFFFF, "<u4")
    blocks[:, :width] = contexts
    encryptor = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()  # noqa: S305
    words = np.frombuffer(encryptor.update(blocks.tobytes()), "<u8").reshape(-1, 2)
    assert streams.dtype == routes.dtype == np.uint64
    assert (streams == words[:, 0]).all()
    assert (routes == words[:, 1]).all()


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 255))
def test_one_bit_of_the_secret_or_the_id_changes_all(secret: bytes, bit: int) -> None:
    flipped = bytearray(secret)
    flipped[bit // 8] ^= 1 << bit % 8
    keys = [
        SecretKey("k", secret).subkey(LABEL_CONTEXT, 16),
        SecretKey("k", bytes(flipped)).subkey(LABEL_CONTEXT, 16),
        SecretKey("l", secret).subkey(LABEL_CONTEXT, 16),
        SecretKey("k", secret).subkey("contexts", 16),
    ]
    assert len({one(key, [1, 2]) for key in keys}) == len(keys)


def test_levels_look_uniform_and_tokens_independent() -> None:
    """A coarse check that no step was lost: means, and correlation between neighbouring ids."""
    n = 200_000
    contexts = np.arange(n, dtype=np.uint32).reshape(-1, 1)
    streams, _routes = ContextPRF(KEY).evaluate(contexts)
    here, next_one = (
        pair_levels(pair_values(streams, np.full(n, token, np.uint32))).astype(float) / 2**52
        for token in (7, 8)
    )
    assert abs(here.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert abs(np.corrcoef(here, next_one)[0, 1]) < 5 / np.sqrt(n)


def test_the_key_is_not_shown() -> None:
    assert repr(ContextPRF(KEY)) == "<ContextPRF>"
