"""The keyed uniforms at one position: what a sampler asks for.

Rule 1: a position of the account channel is keyed only for a known account.
Rule 2: nothing here remembers; that a context is marked once a reply is the sampler's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from watermark.keys import LABEL_CONTEXT, KeyRecord
from watermark.seeding.channel import AccountCode, code_indices, is_account_channel
from watermark.seeding.context import as_token_ids
from watermark.seeding.prf import ContextPRF
from watermark.seeding.uniforms import flip_levels, levels_to_uniforms, uniform_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, repr=False)
class ContextStream:
    """The uniforms of all tokens after one context; it is secret, so its repr is empty."""

    stream: np.uint64
    is_flipped: bool

    def __repr__(self) -> str:
        """Show nothing: two exact scores of one context give the stream back."""
        return "<ContextStream>"

    def levels(self, tokens: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the integer behind every token's uniform, shape (n,), in 0..2^52 - 1."""
        levels = uniform_levels(self.stream, tokens)
        return flip_levels(levels) if self.is_flipped else levels

    def uniforms(self, tokens: NDArray[np.uint32]) -> NDArray[np.float64]:
        """Return u for every token, shape (n,), each in [2^-53, 1 - 2^-53]."""
        return levels_to_uniforms(self.levels(tokens))


@dataclass(frozen=True, slots=True, repr=False)
class ContextStreams:
    """The streams after many contexts; secret, so its repr is empty.

    Attributes:
        streams: Shape (n,).
        is_flipped: Where u becomes 1 - u.
        is_keyed: Where the position is marked at all.
    """

    streams: NDArray[np.uint64]
    is_flipped: NDArray[np.bool_]
    is_keyed: NDArray[np.bool_]

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "<ContextStreams>"

    def keyed(self) -> ContextStreams:
        """Return those of positions that are marked."""
        kept = self.is_keyed
        return ContextStreams(self.streams[kept], self.is_flipped[kept], kept[kept])


class KeyedUniforms:
    """One key record, ready to answer position by position."""

    __slots__ = ("_code", "_prf", "record")

    def __init__(self, record: KeyRecord, *, account: str | None = None) -> None:
        """Derive the subkeys.

        Args:
            record: The marking key's record.
            account: Who is served; None leaves account-channel positions unmarked.

        Raises:
            SchemeParameterError: The account's name is not 1 to 255 bytes of NFC UTF-8.
        """
        self.record = record
        self._prf = ContextPRF(record.secret.subkey(LABEL_CONTEXT, 16))
        self._code = None if account is None else AccountCode(record.secret, account)

    def __repr__(self) -> str:
        """Show the key id only."""
        return f"<KeyedUniforms {self.record.key_id!r}>"

    @property
    def context_width(self) -> int:
        """Number of preceding tokens in a context."""
        return self.record.context_width

    def at(self, context: Sequence[int]) -> ContextStream | None:
        """Return the uniforms after a context, or None where the position stays unmarked.

        Args:
            context: Exactly `record.context_width` token ids, oldest first.

        Raises:
            TokenIdError: An id is outside 0..2^32 - 2.
        """
        found = self.at_each(as_token_ids(context).reshape(1, -1))
        if not found.is_keyed[0]:
            return None
        return ContextStream(found.streams[0], bool(found.is_flipped[0]))

    def streams(self, contexts: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Return the stream of every context: what tells it from all others, under this key.

        Args:
            contexts: Shape (n, `record.context_width`), oldest token first.

        Returns:
            Shape (n,); as secret as the uniforms that follow from them.
        """
        return self._prf.evaluate(contexts)[0]

    def at_each(self, contexts: NDArray[np.uint32]) -> ContextStreams:
        """Return the streams after many contexts at once.

        Args:
            contexts: Shape (n, context_width), as `as_token_ids` gives ids, oldest first.
        """
        streams, routes = self._prf.evaluate(contexts)
        in_account = is_account_channel(routes, self.record.account_share_q16)
        is_flipped = np.zeros(len(streams), np.bool_)
        if self._code is not None and in_account.any():
            is_flipped[in_account] = self._code.bits(code_indices(routes[in_account]))
        is_keyed = ~in_account if self._code is None else np.ones(len(streams), np.bool_)
        return ContextStreams(streams, is_flipped, is_keyed)
