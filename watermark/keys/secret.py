"""A secret key, and the subkeys that are derived from it.

Rule 1: the 32 bytes leave a :class:`SecretKey` only as subkeys, or through :meth:`reveal` into a
key file. Rule 2: nothing that prints, logs, copies or pickles a key can hold them. Rule 3: each
use of a key has a label of its own, and each label one length, because HKDF outputs of two
lengths share their beginning. Rule 4: a :class:`ContextKey` holds one subkey and derives nothing.

Source: RFC 5869 (HKDF); `watermark/spec/seeding.md`, section "Key".
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Never

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from watermark.errors import KeysError

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRET_BYTES: Final = 32
MAX_KEY_ID_BYTES: Final = 255

LABEL_CONTEXT: Final = "context"
LABEL_ACCOUNT_CODE: Final = "account-code"
LABEL_ACCOUNT_TAG: Final = "account-tag"
LABEL_NATIVE_SGLANG: Final = "native-sglang"
LABEL_STATIC_GREEN_LIST: Final = "static-green-list"
LABEL_PRIVATE_DRAWS: Final = "private-draws"
LABEL_COMMITMENT_BLINDING: Final = "commitment-blinding"
LABEL_FINGERPRINT: Final = "fingerprint"
LABEL_BEACON_ROOT: Final = "beacon-root"
LABEL_DETECTOR_NOISE: Final = "detector-noise"
LABEL_LEDGER_ACCOUNT: Final = "ledger-account"
LABEL_LEDGER_CONVERSATION: Final = "ledger-conversation"
LABEL_LEDGER_WRAP: Final = "ledger-wrap"
LABEL_LEDGER_CONTEXT: Final = "ledger-context"

SUBKEY_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {
        LABEL_CONTEXT: 16,  # an AES-128 key
        LABEL_ACCOUNT_CODE: 16,  # an AES-128 key
        LABEL_ACCOUNT_TAG: 32,  # an HMAC-SHA256 key
        LABEL_NATIVE_SGLANG: 8,  # written as 16 hex digits
        LABEL_STATIC_GREEN_LIST: 16,  # an AES-128 key
        LABEL_PRIVATE_DRAWS: 32,  # an HMAC-SHA256 key
        LABEL_COMMITMENT_BLINDING: 32,  # an HMAC-SHA256 key
        LABEL_FINGERPRINT: 16,  # a public name of the material, nothing more
        LABEL_BEACON_ROOT: 32,  # an HMAC-SHA256 key: of an operator secret, for epochs' shares
        LABEL_DETECTOR_NOISE: 32,  # an HMAC-SHA256 key: of what an oracle adds to a score
        LABEL_LEDGER_ACCOUNT: 32,  # an HMAC-SHA256 key: of a ledger's secret, for pseudonyms
        LABEL_LEDGER_CONVERSATION: 32,  # an HMAC-SHA256 key: likewise, for conversations
        LABEL_LEDGER_WRAP: 32,  # an AES-256 key: likewise, it encrypts accounts' data keys
        LABEL_LEDGER_CONTEXT: 16,  # an AES-128 key: likewise, for contexts that an engine marked
    }
)

_INFO_PREFIX: Final = b"output-watermark/v1/"
_LABEL: Final = re.compile(r"[a-z-]+")
_MAX_SUBKEY_BYTES: Final = 255 * 32  # RFC 5869, section 2.3


def check_key_id(key_id: str) -> bytes:
    """Return `key_id` as the UTF-8 that goes into every derivation.

    Args:
        key_id: The name of an epoch key.

    Returns:
        Its UTF-8, 1 to 255 bytes.

    Raises:
        KeysError: The id is empty, too long, not NFC, or cannot be written as UTF-8.
    """
    try:
        encoded = key_id.encode()
    except UnicodeEncodeError as err:
        raise KeysError(f"key id {key_id!r} is not UTF-8 text; choose another id") from err
    if not 1 <= len(encoded) <= MAX_KEY_ID_BYTES:
        raise KeysError(
            f"key id has {len(encoded)} bytes of UTF-8; choose one of 1 to {MAX_KEY_ID_BYTES}"
        )
    if not unicodedata.is_normalized("NFC", key_id):
        nfc = unicodedata.normalize("NFC", key_id)
        raise KeysError(f"key id {key_id!a} is not in Unicode NFC; write {nfc!a}")
    return encoded


class SecretKey:
    """One epoch's secret with its id; shows the id only.

    Immutable. Equal when id and secret agree, compared in constant time; hashed by the id. It
    can be neither copied nor pickled, so that no second copy is made by accident.

    Args:
        key_id: Name of the epoch key, 1 to 255 bytes of NFC UTF-8.
        secret: 32 bytes from a cryptographic source; the caller draws them.

    Raises:
        KeysError: The id is malformed, or the secret is not 32 bytes.
    """

    __slots__ = ("_fingerprint", "_id_bytes", "_key_id", "_secret")

    _key_id: str
    _id_bytes: bytes
    _secret: bytes
    _fingerprint: str

    def __init__(self, key_id: str, secret: bytes) -> None:
        id_bytes = check_key_id(key_id)
        if len(secret) != SECRET_BYTES:
            raise KeysError(
                f"the secret of key {key_id!r} has {len(secret)} bytes; give exactly {SECRET_BYTES}"
            )
        object.__setattr__(self, "_key_id", key_id)
        object.__setattr__(self, "_id_bytes", id_bytes)
        object.__setattr__(self, "_secret", bytes(secret))
        object.__setattr__(self, "_fingerprint", "")

    @property
    def key_id(self) -> str:
        """Name of the epoch key; not secret."""
        return self._key_id

    @property
    def is_context_only(self) -> bool:
        """Whether this holds the context subkey and nothing else."""
        return False

    @property
    def is_epoch_secret(self) -> bool:
        """Whether every subkey of an epoch follows from this, so that it can be committed to."""
        return True

    @property
    def fingerprint(self) -> str:
        """32 hex digits that tell this material from any other; not secret."""
        if not self._fingerprint:
            name = self.subkey(LABEL_FINGERPRINT, SUBKEY_BYTES[LABEL_FINGERPRINT]).hex()
            object.__setattr__(self, "_fingerprint", name)
        return self._fingerprint

    def subkey(self, label: str, length: int) -> bytes:
        """Return the subkey for one use.

        Args:
            label: What the subkey is for, `[a-z-]+`; the known ones are `LABEL_*`.
            length: Bytes wanted; for a known label, the length in `SUBKEY_BYTES`.

        Returns:
            `length` bytes of HKDF-SHA256, no salt, with the info string of the specification.

        Raises:
            KeysError: The label is malformed, or the length is not the label's.
        """
        if _LABEL.fullmatch(label) is None:
            raise KeysError(f"subkey label {label!r} is malformed; use lower-case letters and '-'")
        expected = SUBKEY_BYTES.get(label, length)
        if length != expected or not 1 <= length <= _MAX_SUBKEY_BYTES:
            raise KeysError(f"subkey {label!r} cannot have {length} bytes; see SUBKEY_BYTES")
        field = len(self._id_bytes).to_bytes(4, "little") + self._id_bytes
        info = _INFO_PREFIX + label.encode() + field
        return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(self._secret)

    def reveal(self) -> bytes:
        """Return the 32 secret bytes; only for writing a key file or disclosing a retired key."""
        return self._secret

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._key_id!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        same_secret = hmac.compare_digest(self._secret, other._secret)
        is_same_kind = type(self) is type(other)
        return same_secret and is_same_kind and self._id_bytes == other._id_bytes

    def __hash__(self) -> int:
        return hash(self._key_id)

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"a SecretKey is immutable; {name!r} cannot be set")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError(f"a SecretKey is immutable; {name!r} cannot be deleted")

    def __copy__(self) -> Never:
        raise TypeError("a SecretKey is never copied; pass the object itself")

    def __deepcopy__(self, memo: object) -> Never:
        raise TypeError("a SecretKey is never copied; pass the object itself")

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a SecretKey is never pickled; load it where it is needed")

    def __getstate__(self) -> Never:
        raise TypeError("a SecretKey is never pickled; load it where it is needed")


class ContextKey(SecretKey):
    """One epoch's context subkey, as it was disclosed: detects, and derives nothing else.

    Args:
        key_id: Name of the epoch key.
        context: The 16 bytes of its subkey `context`.

    Raises:
        KeysError: The id is malformed, or the subkey is not 16 bytes.
    """

    __slots__ = ()

    def __init__(self, key_id: str, context: bytes) -> None:
        if len(context) != SUBKEY_BYTES[LABEL_CONTEXT]:
            raise KeysError(
                f"the context subkey of key {key_id!r} has {len(context)} bytes; "
                f"give exactly {SUBKEY_BYTES[LABEL_CONTEXT]}"
            )
        object.__setattr__(self, "_key_id", key_id)
        object.__setattr__(self, "_id_bytes", check_key_id(key_id))
        object.__setattr__(self, "_secret", bytes(context))
        name = hashlib.sha256(_INFO_PREFIX + b"context-fingerprint" + context).hexdigest()[:32]
        object.__setattr__(self, "_fingerprint", name)

    @property
    def is_context_only(self) -> bool:
        """Whether this holds the context subkey and nothing else."""
        return True

    @property
    def is_epoch_secret(self) -> bool:
        """Whether every subkey of the epoch follows from this; one alone does not."""
        return False

    def subkey(self, label: str, length: int) -> bytes:
        """Return the context subkey.

        Args:
            label: `context`.
            length: 16.

        Raises:
            KeysError: Another subkey is asked for.
        """
        if (label, length) != (LABEL_CONTEXT, SUBKEY_BYTES[LABEL_CONTEXT]):
            raise KeysError(
                f"key {self.key_id!r} is a disclosed context subkey and cannot derive {label!r}; "
                "give the epoch's own key file"
            )
        return self._secret

    def reveal(self) -> bytes:
        """Refuse: there is no secret here.

        Raises:
            KeysError: Always.
        """
        raise KeysError(
            f"key {self.key_id!r} is a disclosed context subkey; its secret is not here"
        )
