"""The two channels a position can belong to, and the code of an account.

A share of the positions, chosen by the route, carries who was served; the rest carry the epoch.
The share is off by default.

Source: `watermark/spec/seeding.md`, Route to channel.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import SchemeParameterError
from watermark.keys import LABEL_ACCOUNT_CODE, LABEL_ACCOUNT_TAG, SecretKey
from watermark.seeding.prf import encrypt_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODE_POSITIONS: Final = 1 << 16
_BLOCK_BITS: Final = 128
_LOW_16: Final = np.uint64(0xFFFF)
_SHIFT_16: Final = np.uint64(16)
_MAX_NAME_BYTES: Final = 255


def is_account_channel(routes: NDArray[np.uint64], account_share_q16: int) -> NDArray[np.bool_]:
    """Return which positions belong to the account channel.

    Args:
        routes: Shape (n,).
        account_share_q16: The share in units of 2^-16, 0 (none) to 65536 (all).
    """
    share: NDArray[np.bool_] = (routes & _LOW_16) < np.uint64(account_share_q16)
    return share


def code_indices(routes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return each position's index into the 65,536 code positions, shape (n,)."""
    return ((routes >> _SHIFT_16) & _LOW_16).astype(np.uint16)


class AccountCode:
    """The 65,536 code bits of one account under one key.

    They exist as soon as the name does; no registry is needed.
    """

    __slots__ = ("_code_key", "_tag")

    def __init__(self, secret: SecretKey, account: str) -> None:
        """Derive the account's tag.

        Args:
            secret: The epoch's secret.
            account: The account's name, 1 to 255 bytes of NFC UTF-8.

        Raises:
            SchemeParameterError: The name is empty, too long, or not in NFC.
        """
        name = account.encode()
        if not 1 <= len(name) <= _MAX_NAME_BYTES or not unicodedata.is_normalized("NFC", account):
            raise SchemeParameterError("an account name is 1 to 255 bytes of NFC UTF-8")
        tag_key = secret.subkey(LABEL_ACCOUNT_TAG, 32)
        self._tag = hmac.new(tag_key, name, hashlib.sha256).digest()[:8]
        self._code_key = secret.subkey(LABEL_ACCOUNT_CODE, 16)

    def __repr__(self) -> str:
        """Show nothing of the code."""
        return "<AccountCode>"

    def bits(self, indices: NDArray[Any]) -> NDArray[np.bool_]:
        """Return the code bit at every index.

        Args:
            indices: Code positions in 0..65535, shape (n,).

        Returns:
            Shape (n,); True where the uniform is flipped.
        """
        index = np.asarray(indices, np.uint64)
        blocks = np.empty((len(index), 4), np.dtype("<u4"))
        blocks[:, :2] = np.frombuffer(self._tag, np.dtype("<u4"))
        blocks[:, 2] = index // np.uint64(_BLOCK_BITS)
        blocks[:, 3] = 0  # the high half of a uint64 block number
        code = encrypt_blocks(self._code_key, blocks).view(np.uint8).reshape(-1, 16)
        bit = (index % np.uint64(_BLOCK_BITS)).astype(np.int64)
        byte = code[np.arange(len(index)), bit // 8]
        return ((byte >> (bit % 8).astype(np.uint8)) & 1).astype(np.bool_)
