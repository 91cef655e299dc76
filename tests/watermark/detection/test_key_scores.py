"""Many keys against the same pairs agree with one key at a time, within the proven error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from watermark.detection import (
    decoy_context_keys,
    key_score_blocks,
    key_statistics,
    key_sums,
)
from watermark.errors import SchemeParameterError
from watermark.schemes import SUM_BLOCK, score_sum, scores_from_levels
from watermark.seeding import ContextPRF, is_account_channel, pair_values, uniform_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pairs(n: int, width: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    rng = np.random.default_rng(n + width)
    contexts = rng.integers(0, 2**32 - 1, (n, width), dtype=np.uint32)
    return contexts, rng.integers(0, 2**32 - 1, n, dtype=np.uint32)


def plain_scores(
    key: NDArray[np.uint8],
    contexts: NDArray[np.uint32],
    tokens: NDArray[np.uint32],
    share: int,
) -> tuple[NDArray[np.float64], int]:
    """Score as the detector does, one key, one logarithm a pair."""
    streams, routes = ContextPRF(key.tobytes()).evaluate(contexts)
    scores = scores_from_levels(uniform_levels(streams, tokens))
    is_account = is_account_channel(routes, share)
    scores[is_account] = 0.0
    return scores, len(tokens) - int(is_account.sum())


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, SUM_BLOCK, 2 * SUM_BLOCK + 5])
@pytest.mark.parametrize("share", [0, 20_000])
def test_sums_and_scores_agree_with_the_plain_form(n: int, width: int, share: int) -> None:
    contexts, tokens = pairs(n, width)
    keys = decoy_context_keys(3, np.random.default_rng(0))

    sums = key_sums(keys, contexts, tokens, account_share_q16=share)
    rows = {
        row: scores.copy()
        for block, matrix in key_score_blocks(keys, contexts, tokens, account_share_q16=share)
        for row, scores in zip(range(block.start, block.stop), matrix, strict=True)
    }

    for row, key in enumerate(keys):
        expected, n_scored = plain_scores(key, contexts, tokens, share)
        total = float(expected.sum())
        bound = 2.0 * (n + (np.log2(n + 1) + 8) * total) * 2.0**-53
        assert abs(sums.statistics[row] - total) <= bound
        assert sums.n_scored[row] == n_scored
        if not share:
            streams, _ = ContextPRF(key.tobytes()).evaluate(contexts)
            assert sums.statistics[row] == score_sum(pair_values(streams, tokens))
        np.testing.assert_array_equal(rows[row], expected)


def test_rows_are_blocked_without_a_change() -> None:
    contexts, tokens = pairs(100, 2)
    keys = decoy_context_keys(7, np.random.default_rng(1))
    whole = [b.copy() for _, b in key_score_blocks(keys, contexts, tokens)]
    parts = [
        (rows, b.copy()) for rows, b in key_score_blocks(keys, contexts, tokens, block_scores=300)
    ]

    assert [rows for rows, _ in parts] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    np.testing.assert_array_equal(np.concatenate([b for _, b in parts]), whole[0])
    np.testing.assert_allclose(
        key_statistics(keys, contexts, tokens), whole[0].sum(axis=1), rtol=1e-13
    )


def test_decoy_keys_are_uniform_bytes_of_the_generator() -> None:
    keys = decoy_context_keys(4096, np.random.default_rng(2))

    assert keys.shape == (4096, 16)
    counts = np.bincount(keys.ravel(), minlength=256)
    chi_square = float(((counts - 256.0) ** 2 / 256.0).sum())
    assert chi_square < 340  # 255 degrees of freedom: p about 3e-4
    assert (keys == decoy_context_keys(4096, np.random.default_rng(2))).all()


def test_bad_shapes_are_refused() -> None:
    contexts, tokens = pairs(5, 2)
    keys = decoy_context_keys(2, np.random.default_rng(0))

    with pytest.raises(SchemeParameterError, match="shape"):
        key_statistics(keys[:, :8], contexts, tokens)
    with pytest.raises(SchemeParameterError, match="one token a context"):
        key_statistics(keys, contexts, tokens[:4])
    with pytest.raises(SchemeParameterError, match="one token a context"):
        next(key_score_blocks(keys, contexts, tokens[:4]))
