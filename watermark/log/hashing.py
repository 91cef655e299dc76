"""The two hashes of the tree, and the reduction that everything else is built from.

Rule 1: a leaf is hashed after a zero byte and a node after a one byte, so that no entry can pass
for an inner node. Rule 2: a level of the tree is made from the level below it in one pass over
pairs; SHA-256 is called once for each node and the interpreter does little beside.

Source: RFC 6962, section 2.1.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of the tree that has no leaf."""

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """Return the leaf hash of one entry, 32 bytes."""
    return sha256(_LEAF + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """Return the leaf hash of each entry, in order."""
    prefix, digest = _LEAF, sha256
    return [digest(prefix + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above `left` and `right`, 32 bytes."""
    return sha256(_NODE + left + right).digest()


def parents(level: Sequence[bytes]) -> list[bytes]:
    """Return the nodes above consecutive pairs of `level`; an odd last one has no node yet.

    Args:
        level: Hashes of one level, the first with an even index.

    Returns:
        `len(level) // 2` hashes of the level above.
    """
    prefix, digest = _NODE, sha256
    pairs = iter(level)
    return [
        digest(prefix + left + right).digest() for left, right in zip(pairs, pairs, strict=False)
    ]


def fold_peaks(peaks: Iterable[bytes]) -> bytes:
    """Return the root over complete subtrees, given from the right (smallest) to the left.

    Args:
        peaks: Roots of the complete subtrees that a range of leaves consists of.

    Returns:
        The root; `EMPTY_ROOT` where there are none.
    """
    remaining = iter(peaks)
    root = next(remaining, EMPTY_ROOT)
    for left in remaining:
        root = node_hash(left, root)
    return root
