"""Token ids and the contexts before them.

Rule 1: the context of a position is the `context_width` tokens before it in the same reply.
Rule 2: the first position that has one, and so is marked and scored, is `context_width`.

Source: `watermark/spec/seeding.md`, Context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import TokenIdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_CONTEXT_WIDTH: Final = 4
PADDING: Final = 0xFFFFFFFF  # fills a block's unused words, so no token may have this id


def as_token_ids(tokens: Sequence[int] | NDArray[Any]) -> NDArray[np.uint32]:
    """Return token ids as a contiguous little-endian uint32 array.

    Args:
        tokens: Ids, shape (n,), each in 0..2^32 - 2.

    Returns:
        Shape (n,); the input itself where it already has that form.

    Raises:
        TokenIdError: An id is not an integer in the range, or the array is not flat.
    """
    array = np.asarray(tokens)
    if array.size == 0:
        return np.zeros(0, np.dtype("<u4"))
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TokenIdError("token ids must be a flat sequence of integers")
    if array.dtype.itemsize > 4 or array.dtype.kind == "i":  # noqa: PLR2004 - bytes of a uint32
        low, high = int(array.min()), int(array.max())
    else:
        low, high = 0, int(array.max())
    if low < 0 or high >= PADDING:
        raise TokenIdError(f"token ids must lie in 0..{PADDING - 1}, found {low}..{high}")
    return np.ascontiguousarray(array, np.dtype("<u4"))


def context_windows(tokens: NDArray[np.uint32], context_width: int) -> NDArray[np.uint32]:
    """Return the context of every position that has one.

    Args:
        tokens: Ids of one reply, shape (n,).
        context_width: Number of preceding tokens, 1..4.

    Returns:
        Shape (max(0, n - context_width), context_width), a view: row i is the context of
        position context_width + i, oldest token first.
    """
    if len(tokens) <= context_width:
        return np.zeros((0, context_width), np.dtype("<u4"))
    # The same view as numpy's sliding_window_view, at a tenth of its fixed cost.
    tokens = np.ascontiguousarray(tokens)
    shape, step = (len(tokens) - context_width, context_width), tokens.itemsize
    windows = np.ndarray(shape, tokens.dtype, buffer=tokens, strides=(step, step))
    windows.flags.writeable = False
    return windows
