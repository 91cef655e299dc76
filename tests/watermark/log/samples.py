"""What the tests of the log share: vectors, a key, logs, and ways to break things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watermark.log import Log, MemoryStorage, MerkleTree, NoteSigner, leaf_hashes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[3]
NAME = "log.example/keys"
SIGNER = NoteSigner(NAME, bytes(range(32)))
OTHER = NoteSigner("other.example", bytes(32))


def vectors(name: str) -> Any:
    """Return one file of known answers."""
    path = ROOT / "tests" / "vectors" / "log" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def sample_entries(count: int, start: int = 0) -> list[bytes]:
    """Return entries of different lengths, the first of them empty."""
    return [b"%d" % index * (index % 5) for index in range(start, start + count)]


def tree_of(entries: Iterable[bytes]) -> MerkleTree:
    """Return the tree over entries."""
    tree = MerkleTree()
    tree.extend(leaf_hashes(entries))
    return tree


def log_of(*batches: int) -> tuple[MemoryStorage, Log]:
    """Return a stored log, published after each batch."""
    storage = MemoryStorage()
    log = Log.create(storage, SIGNER)
    for count in batches:
        log.extend(sample_entries(count, log.size))
        log.publish()
    return storage, log


def flip(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def all_flips(data: bytes) -> Iterator[bytes]:
    """Yield `data` with each of its bits changed."""
    return (flip(data, bit) for bit in range(8 * len(data)))
