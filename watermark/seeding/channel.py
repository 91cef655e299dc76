"""The two channels a position can belong to, and the code of an account.

A share of the positions, chosen by the route, carries who was served; the rest carry the epoch.
The share is off by default.

Source: `watermark/spec/seeding.md`, Route to channel.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from watermark.errors import SchemeParameterError
from watermark.keys import LABEL_ACCOUNT_CODE, LABEL_ACCOUNT_TAG, SecretKey
from watermark.seeding.prf import BlockCipher, encrypt_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

CODE_POSITIONS: Final = 1 << 16
CODE_BLOCK_BITS: Final = 128
_LOW_16: Final = np.uint64(0xFFFF)
_SHIFT_16: Final = np.uint64(16)
_MAX_NAME_BYTES: Final = 255
_TAG_BYTES: Final = 8
_HASH_BLOCK: Final = 64  # bytes that SHA-256 takes at a time


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


def check_account(account: str) -> bytes:
    """Return an account's name as the UTF-8 that goes into its tag.

    Raises:
        SchemeParameterError: The name is not 1 to 255 bytes of NFC UTF-8.
    """
    try:
        name = account.encode()
    except UnicodeEncodeError:
        name = b""
    if not 1 <= len(name) <= _MAX_NAME_BYTES or not unicodedata.is_normalized("NFC", account):
        raise SchemeParameterError(
            f"{account!a} names no account; write 1 to 255 bytes of UTF-8 in Unicode NFC"
        )
    return name


class AccountTags:
    """Makes the tags of accounts under one key: the one slow step of a million codes."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: SecretKey) -> None:
        """Derive the tag key, and begin its two hashes (RFC 2104) once for all names."""
        key = secret.subkey(LABEL_ACCOUNT_TAG, 32).ljust(_HASH_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "<AccountTags>"

    def tag(self, account: str) -> bytes:
        """Return the 8 bytes that stand for an account.

        Raises:
            SchemeParameterError: The name is not 1 to 255 bytes of NFC UTF-8.
        """
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(check_account(account))
        outer.update(inner.digest())
        return outer.digest()[:_TAG_BYTES]


class AccountCodes:
    """The code bits of many accounts under one key; one AES key serves all of them.

    A code exists as soon as its name does; no registry is needed.
    """

    __slots__ = ("_blocks", "_cipher")

    def __init__(self, secret: SecretKey, accounts: Iterable[str]) -> None:
        """Derive the accounts' tags.

        Args:
            secret: The epoch's secret.
            accounts: Names, each 1 to 255 bytes of NFC UTF-8.

        Raises:
            SchemeParameterError: A name is empty, too long, or not in NFC.
        """
        tags = AccountTags(secret)
        data = b"".join(map(tags.tag, accounts))
        self._blocks = np.zeros((len(data) // _TAG_BYTES, 4), np.dtype("<u4"))
        self._blocks[:, :2] = np.frombuffer(data, np.dtype("<u4")).reshape(-1, 2)
        self._cipher = BlockCipher(secret.subkey(LABEL_ACCOUNT_CODE, 16))

    def __len__(self) -> int:
        """Return the number of accounts."""
        return len(self._blocks)

    def __repr__(self) -> str:
        """Show nothing of the codes."""
        return f"<AccountCodes of {len(self)}>"

    def words(self, block: int) -> NDArray[np.uint64]:
        """Return the bits of 128 code positions for every account; the next call overwrites them.

        Not for two threads at once.

        Args:
            block: Code position // 128, 0..511.

        Returns:
            Shape (2, n): bit b of word w is that of code position 128 block + 64 w + b.
        """
        self._blocks[:, 2] = block  # the high half of the uint64 block number stays 0
        return self._cipher.encrypt(self._blocks).T

    def bits(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the code bit of every account at every position, shape (n, m).

        Args:
            positions: Code positions in 0..65535, shape (m,); True where the uniform is flipped.
        """
        found = np.empty((len(positions), len(self)), np.bool_)
        blocks = positions // CODE_BLOCK_BITS
        for block in np.unique(blocks).tolist():
            here = np.flatnonzero(blocks == block)
            code = np.unpackbits(self.words(block).T.view(np.uint8), axis=1, bitorder="little")
            found[here] = code[:, positions[here] % CODE_BLOCK_BITS].T
        return found.T


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
        self._tag = AccountTags(secret).tag(account)
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
        blocks[:, 2] = index // np.uint64(CODE_BLOCK_BITS)
        blocks[:, 3] = 0  # the high half of a uint64 block number
        code = encrypt_blocks(self._code_key, blocks).view(np.uint8).reshape(-1, 16)
        bit = (index % np.uint64(CODE_BLOCK_BITS)).astype(np.int64)
        byte = code[np.arange(len(index)), bit // 8]
        return ((byte >> (bit % 8).astype(np.uint8)) & 1).astype(np.bool_)
