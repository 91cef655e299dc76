"""Commitments: a key's subkeys, fixed before they are used, and opened one by one.

Rule 1: each subkey is a leaf of its own with a blinding value of its own, so that opening one
says nothing about another. Rule 2: what a record pins stands in the entry in the clear, so that
nobody chooses it afterwards. Rule 3: an entry has one form, byte for byte.

Source: `watermark/spec/commitment.md`; RFC 6962, section 2.1 (the tree over the leaves).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from watermark.errors import CommitmentError, LogVerificationError
from watermark.keys.record import (
    format_time,
)
from watermark.keys.secret import (
    LABEL_ACCOUNT_CODE,
    LABEL_ACCOUNT_TAG,
    LABEL_BEACON_ROOT,
    LABEL_COMMITMENT_BLINDING,
    LABEL_CONTEXT,
    LABEL_NATIVE_SGLANG,
    LABEL_PRIVATE_DRAWS,
    SECRET_BYTES,
    SUBKEY_BYTES,
    SecretKey,
    check_key_id,
)
from watermark.log import MerkleTree, inclusion_proof, leaf_hash, verify_inclusion

if TYPE_CHECKING:
    from datetime import datetime

    from watermark.keys.record import (
        KeyFields,
    )

COMMITTED_LABELS: Final = (
    LABEL_CONTEXT,
    LABEL_ACCOUNT_CODE,
    LABEL_ACCOUNT_TAG,
    LABEL_NATIVE_SGLANG,
    LABEL_PRIVATE_DRAWS,
)
"""The leaves, in order."""

KEY_ENTRY: Final = "output-watermark-key-commitment/v1"
BEACON_ENTRY: Final = "output-watermark-beacon-commitment/v1"
GAP_ENTRY: Final = "output-watermark-timestamp-gap/v1"

_LEAF: Final = b"output-watermark/v1/commitment-leaf"
_SHARE_LABEL: Final = "beacon-share"
_EPOCH_INFO: Final = b"output-watermark/v1/beacon-epoch"
_ROOT_LINE: Final = re.compile(r"^root: ([0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What opens one leaf of a commitment.

    Attributes:
        label: Which subkey.
        subkey: The subkey.
        blinding: Its blinding value, 32 bytes.
        path: Hashes from the leaf's sibling up to the root.
    """

    label: str
    subkey: bytes
    blinding: bytes
    path: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"<Opening {self.label!r}>"


def commitment_root(secret: SecretKey) -> bytes:
    """Return the root over all leaves of a key, 32 bytes.

    Raises:
        KeysError: The secret is a disclosed context subkey.
    """
    return _tree(secret).root()


def open_leaf(secret: SecretKey, label: str) -> Opening:
    """Return what shows one subkey of a committed key.

    Args:
        secret: The key.
        label: Which subkey, of `COMMITTED_LABELS`.

    Raises:
        KeysError: The secret is a disclosed context subkey.
    """
    index = COMMITTED_LABELS.index(label)
    return Opening(
        label=label,
        subkey=secret.subkey(label, SUBKEY_BYTES[label]),
        blinding=_blinding(secret, label),
        path=inclusion_proof(_tree(secret), index, len(COMMITTED_LABELS)),
    )


def verify_opening(opening: Opening, key_id: str, root: bytes) -> bytes:
    """Return the subkey that an opening shows to be the committed one.

    Args:
        opening: The opening.
        key_id: The key that it speaks of.
        root: The root of the commitment.

    Raises:
        CommitmentError: It is not.
    """
    if opening.label not in COMMITTED_LABELS:
        raise CommitmentError(f"no commitment has a leaf {opening.label!a}; ask for another file")
    leaf = _leaf(opening.label, key_id, opening.blinding, opening.subkey)
    index = COMMITTED_LABELS.index(opening.label)
    try:
        verify_inclusion(leaf, index, len(COMMITTED_LABELS), opening.path, root)
    except LogVerificationError as err:
        raise CommitmentError(
            f"subkey {opening.label!a} of key {key_id!a} is not the one that was committed to; "
            "the file is damaged, or another key's"
        ) from err
    return opening.subkey


def key_entry(fields: KeyFields, root: bytes) -> bytes:
    """Return the log entry that commits to a record.

    Args:
        fields: What is pinned.
        root: The root over its subkeys.

    Raises:
        CommitmentError: The key id cannot stand in a line.
    """
    return _lines(
        KEY_ENTRY,
        ("key-id", fields.key_id),
        ("unit", fields.unit),
        ("context-width", str(fields.context_width)),
        ("scheme", fields.scheme),
        ("rho", repr(float(fields.rho))),
        ("account-share-q16", str(fields.account_share_q16)),
        ("root", root.hex()),
    )


def root_of_entry(entry: bytes) -> bytes:
    """Return the root that a key's log entry holds.

    Raises:
        CommitmentError: It is no entry of that form.
    """
    text = entry.decode("utf-8", "replace")
    found = _ROOT_LINE.search(text)
    if not text.startswith(KEY_ENTRY + "\n") or found is None:
        raise CommitmentError("this log entry commits to no key; give the entry of a key")
    return bytes.fromhex(found[1])


def gap_entry(key_id: str, at: datetime, reason: str) -> bytes:
    """Return the log entry that says that a key marks before its commitment is stamped.

    Raises:
        CommitmentError: A value cannot stand in a line.
    """
    return _lines(GAP_ENTRY, ("key-id", key_id), ("time", format_time(at)), ("reason", reason))


def gap_key_id(entry: bytes) -> str | None:
    """Return the key that a gap entry speaks of; None for another entry."""
    lines = entry.decode("utf-8", "replace").split("\n")
    return lines[1].removeprefix("key-id: ") if lines[0] == GAP_ENTRY else None


def beacon_entry(operator: SecretKey, key_id: str, beacon: str) -> bytes:
    """Return the log entry that fixes an epoch's share of an operator secret.

    Args:
        operator: The operator secret.
        key_id: The epoch.
        beacon: Which value, published later, is to go into the epoch's secret.

    Raises:
        CommitmentError: A value cannot stand in a line.
    """
    share = _share(operator, key_id)
    blinding = _blinding(operator, f"{_SHARE_LABEL}/{key_id}")
    leaf = _leaf(_SHARE_LABEL, key_id, blinding, share)
    return _lines(BEACON_ENTRY, ("key-id", key_id), ("beacon", beacon), ("share", leaf.hex()))


def beacon_secret(operator: SecretKey, key_id: str, beacon: bytes) -> SecretKey:
    """Return the epoch key that follows from a committed share and a published value.

    Neither can be chosen to make the key what one wants: the share was fixed before the value
    was known, and the value is nobody's choice.

    Args:
        operator: The operator secret.
        key_id: The epoch.
        beacon: The published bytes.
    """
    field = _field(check_key_id(key_id))
    salt = hashlib.sha256(beacon).digest()
    kdf = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=salt, info=_EPOCH_INFO + field)
    return SecretKey(key_id, kdf.derive(_share(operator, key_id)))


def _tree(secret: SecretKey) -> MerkleTree:
    tree = MerkleTree()
    for label in COMMITTED_LABELS:
        subkey = secret.subkey(label, SUBKEY_BYTES[label])
        tree.append(_leaf(label, secret.key_id, _blinding(secret, label), subkey))
    return tree


def _leaf(label: str, key_id: str, blinding: bytes, subkey: bytes) -> bytes:
    fields = (label.encode(), check_key_id(key_id), blinding, subkey)
    return leaf_hash(_LEAF + b"".join(_field(field) for field in fields))


def _blinding(secret: SecretKey, label: str) -> bytes:
    key = secret.subkey(LABEL_COMMITMENT_BLINDING, SUBKEY_BYTES[LABEL_COMMITMENT_BLINDING])
    return hmac.digest(key, label.encode(), "sha256")


def _share(operator: SecretKey, key_id: str) -> bytes:
    key = operator.subkey(LABEL_BEACON_ROOT, SUBKEY_BYTES[LABEL_BEACON_ROOT])
    return hmac.digest(key, check_key_id(key_id), "sha256")


def _field(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _lines(form: str, *fields: tuple[str, str]) -> bytes:
    """Return an entry: its form, then one field a line."""
    for name, value in fields:
        if not value or any(unicodedata.category(character) == "Cc" for character in value):
            raise CommitmentError(f"{name} {value!a} cannot stand in a line; choose another")
    return "".join([f"{form}\n", *(f"{name}: {value}\n" for name, value in fields)]).encode()
