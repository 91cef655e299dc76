"""Reading a log from its files: every entry, and every proof, before it is handed out, is checked.

    >>> from watermark.log import Log, LogReader, MemoryStorage, NoteSigner
    >>> storage, signer = MemoryStorage(), NoteSigner("log.example/keys", bytes(32))
    >>> log = Log.create(storage, signer)
    >>> log.append(b"an entry")
    0
    >>> _ = log.publish()
    >>> LogReader.open(storage, "log.example/keys", [signer.verifier]).read(0).entry
    b'an entry'

Source: c2sp.org/tlog-tiles; RFC 6962, section 2.1.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from watermark.errors import (
    LogForkError,
    LogRangeError,
    LogStorageError,
    LogVerificationError,
)
from watermark.log.checkpoint import Checkpoint, VerifiedCheckpoint, open_checkpoint
from watermark.log.hashing import leaf_hash, leaf_hashes
from watermark.log.proofs import (
    VerifiedInclusion,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from watermark.log.storage import Storage, TileNodes, read_bundle
from watermark.log.tiles import CHECKPOINT_PATH, TILE_WIDTH, bundles_of, tiles_of
from watermark.log.tlog_proof import TlogProof, VerifiedEntry
from watermark.log.tree import MerkleTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from watermark.log.note import NoteVerifier


class LogReader:
    """A log as one checkpoint has it.

    Args:
        storage: Where its files lie.
        checkpoint: The verified checkpoint that everything is checked against.
    """

    __slots__ = ("_nodes", "_storage", "checkpoint")

    def __init__(self, storage: Storage, checkpoint: VerifiedCheckpoint) -> None:
        self.checkpoint = checkpoint
        self._storage = storage
        self._nodes = TileNodes(storage, checkpoint.size)

    @classmethod
    def open(
        cls, storage: Storage, origin: str, verifiers: Sequence[NoteVerifier], *, quorum: int = 1
    ) -> LogReader:
        """Return a reader at the checkpoint that is stored.

        Args:
            storage: Where the log lies.
            origin: The log that it must be.
            verifiers: The keys that count.
            quorum: How many of them must have signed.

        Returns:
            The reader.

        Raises:
            LogStorageError: No checkpoint is stored.
            LogFormatError: It is malformed.
            LogVerificationError: It is not signed as asked, or is another log's.
        """
        return cls(storage, read_checkpoint(storage, origin, verifiers, quorum=quorum))

    def read(self, index: int) -> VerifiedEntry:
        """Return one entry, shown to be in the log.

        Raises:
            LogRangeError: The log has no such entry.
            LogStorageError: A file is missing, damaged, or not what the checkpoint says.
        """
        self._check_index(index)
        bundle, place = divmod(index, TILE_WIDTH)
        entry = read_bundle(self._storage, bundle, self.checkpoint.size)[place]
        inclusion = self._prove(leaf_hash(entry), index)[1]
        return VerifiedEntry(entry=entry, inclusion=inclusion, checkpoint=self.checkpoint)

    def prove_inclusion(self, index: int) -> TlogProof:
        """Return a proof of one entry that travels on its own.

        Raises:
            LogRangeError: The log has no such entry.
            LogStorageError: A file is missing, damaged, or not what the checkpoint says.
        """
        self._check_index(index)
        hashes = self._prove(self._nodes.node(0, index), index)[0]
        return TlogProof(index=index, hashes=hashes, checkpoint=self.checkpoint.note)

    def prove_consistency(self, old: Checkpoint) -> tuple[bytes, ...]:
        """Return the proof that this log extends what an earlier checkpoint says.

        Args:
            old: A checkpoint of the same log, no larger than this one.

        Returns:
            The consistency proof.

        Raises:
            LogRangeError: The earlier checkpoint is larger.
            LogStorageError: A tile is missing or damaged.
            LogForkError: The log does not extend it, or its tiles are damaged.
        """
        new = self.checkpoint
        proof = consistency_proof(self._nodes, old.size, new.size)
        try:
            verify_consistency(old.size, old.root, new.size, new.root, proof)
        except LogVerificationError as err:
            raise LogForkError(
                f"the log of {new.size} entries does not extend the checkpoint of {old.size}, "
                "or its tiles are damaged; compare the two"
            ) from err
        return proof

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """Yield every entry from an index on, in order, each shown to be in the log.

        Args:
            start: The first.

        Raises:
            LogStorageError: A file is missing, damaged, or not what the checkpoint says.
        """
        for index, entries, _ in self._bundles(start // TILE_WIDTH):
            yield from entries[max(start - index * TILE_WIDTH, 0) :]

    def audit(self) -> VerifiedCheckpoint:
        """Return the checkpoint after every entry and every tile was held against it.

        Raises:
            LogStorageError: A file is missing, damaged, or not what the checkpoint says.
        """
        for index, _, leaves in self._bundles():
            if self._nodes.hashes(0, index) != leaves:
                raise LogStorageError(f"tile {index} of level 0 is not over its entries")
        for tile in tiles_of(self.checkpoint.size):
            if tile.level:
                first = tile.index * TILE_WIDTH
                hashes = self._nodes.hashes(tile.level, tile.index)
                for place, value in enumerate(hashes, start=first):
                    if self._nodes.over_tile(tile.level - 1, place) != value:
                        raise LogStorageError(f"{tile.path} is not over the tiles below it")
        return self.checkpoint

    def _bundles(self, first: int = 0) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """Yield index, entries and leaf hashes of each bundle, once its root was shown to fit.

        The proof of a bundle's first leaf runs through the root of the bundle. Its steps inside
        the bundle are made from the entries, so that it holds for all of them or for none.
        """
        size = self.checkpoint.size
        for bundle in islice(bundles_of(size), first, None):
            entries = read_bundle(self._storage, bundle.index, size)
            leaves = leaf_hashes(entries)
            tree = MerkleTree()
            tree.extend(leaves)
            inner = inclusion_proof(tree, 0, bundle.width)
            self._prove(leaves[0], bundle.index * TILE_WIDTH, inner)
            yield bundle.index, entries, leaves

    def _check_index(self, index: int) -> None:
        """Refuse an index that the log does not have."""
        if not 0 <= index < self.checkpoint.size:
            raise LogRangeError(f"the log has {self.checkpoint.size} entries; none is at {index}")

    def _prove(
        self, leaf: bytes, index: int, inner: tuple[bytes, ...] = ()
    ) -> tuple[tuple[bytes, ...], VerifiedInclusion]:
        """Return the inclusion proof of a leaf, whose first steps may be given, and its meaning."""
        size, root = self.checkpoint.size, self.checkpoint.root
        proof = inner + inclusion_proof(self._nodes, index, size)[len(inner) :]
        try:
            return proof, verify_inclusion(leaf, index, size, proof, root)
        except LogVerificationError as err:
            raise LogStorageError(
                f"what is stored of entry {index} is not what the checkpoint says; restore it"
            ) from err


def read_checkpoint(
    storage: Storage, origin: str, verifiers: Sequence[NoteVerifier], *, quorum: int = 1
) -> VerifiedCheckpoint:
    """Return the checkpoint that is stored.

    Args:
        storage: Where the log lies.
        origin: The log that it must be.
        verifiers: The keys that count.
        quorum: How many of them must have signed.

    Returns:
        The checkpoint, verified.

    Raises:
        LogStorageError: No checkpoint is stored.
        LogFormatError: It is malformed.
        LogVerificationError: It is not signed as asked, or is another log's.
    """
    data = storage.read(CHECKPOINT_PATH)
    if data is None:
        raise LogStorageError("no checkpoint is stored; create the log, or restore it")
    return open_checkpoint(data, origin, verifiers, quorum=quorum)
