"""Writing a log: append entries, publish tiles, sign a checkpoint, in an order that survives.

Rule 1: bundles and tiles are written before the checkpoint that is over them; an entry is
acknowledged when :meth:`Log.publish` returned, and what lies beyond the stored checkpoint counts
as never written. Rule 2: nothing is signed before what is *stored* was shown to extend what was
signed last. Rule 3: after any failure to write, the object refuses to go on: only storage knows
what was written, so the log is opened again.

Source: c2sp.org/tlog-tiles; c2sp.org/tlog-checkpoint (a log signs no two inconsistent checkpoints).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watermark.errors import LogForkError, LogRangeError, LogStorageError, LogVerificationError
from watermark.log.checkpoint import (
    Checkpoint,
    VerifiedCheckpoint,
    open_checkpoint,
    sign_checkpoint,
)
from watermark.log.hashing import EMPTY_ROOT, leaf_hashes
from watermark.log.proofs import consistency_proof, verify_consistency
from watermark.log.reader import LogReader, read_checkpoint
from watermark.log.storage import Storage, TileNodes, read_bundle
from watermark.log.tiles import (
    CHECKPOINT_PATH,
    TILE_HEIGHT,
    TILE_WIDTH,
    Bundle,
    Tile,
    check_entry,
    format_bundle,
    join_hashes,
)
from watermark.log.tree import CompactRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.log.note import NoteSigner, NoteVerifier

_CHUNK: Final = TILE_WIDTH * 64  # entries hashed at a time; bounds what is held beside them


class Log:
    """The one writer of one log.

    The origin of the log is the name of its signing key. Made by :meth:`create` or :meth:`open`.
    """

    __slots__ = ("_bundle", "_edge", "_is_broken", "_signer", "_storage", "_tiles", "checkpoint")

    def __init__(
        self, storage: Storage, signer: NoteSigner, checkpoint: VerifiedCheckpoint
    ) -> None:
        """Continue after `checkpoint`; use :meth:`create` or :meth:`open`, which verify it."""
        self.checkpoint = checkpoint
        self._storage = storage
        self._signer = signer
        self._is_broken = False
        size = checkpoint.size
        nodes = TileNodes(storage, size)
        self._edge = CompactRange.of_nodes(nodes, size)
        # Of each level, the hashes of the tile that is not full; of the entries, that bundle.
        self._tiles: list[list[bytes]] = []
        while size >> TILE_HEIGHT * len(self._tiles):
            level = len(self._tiles)
            index, width = divmod(size >> TILE_HEIGHT * level, TILE_WIDTH)
            self._tiles.append(nodes.hashes(level, index) if width else [])
        index, width = divmod(size, TILE_WIDTH)
        self._bundle = read_bundle(storage, index, size) if width else []
        is_whole = not width or leaf_hashes(self._bundle) == self._tiles[0]
        if self._edge.root() != checkpoint.root or not is_whole:
            raise LogStorageError("the stored log is not what its checkpoint says; restore it")

    @classmethod
    def create(cls, storage: Storage, signer: NoteSigner) -> Log:
        """Begin a log: sign and store the checkpoint of the empty tree.

        Args:
            storage: Where it will lie; nothing of a log may be there.
            signer: The key of the log, whose name is the log's origin.

        Returns:
            The log.

        Raises:
            LogStorageError: There is a log already, or what remains of one.
        """
        partial = (Bundle(index=0, width=width).path for width in range(1, TILE_WIDTH + 1))
        for path in (CHECKPOINT_PATH, *partial):
            if storage.read(path) is not None:
                raise LogStorageError(f"{path} is stored already; open the log, or restore it")
        empty = Checkpoint(origin=signer.name, size=0, root=EMPTY_ROOT)
        note = sign_checkpoint(empty, [signer])
        storage.write(CHECKPOINT_PATH, note)
        return cls(storage, signer, open_checkpoint(note, signer.name, [signer.verifier]))

    @classmethod
    def open(
        cls,
        storage: Storage,
        signer: NoteSigner,
        *,
        former: Sequence[NoteVerifier] = (),
        last_known: Checkpoint | None = None,
    ) -> Log:
        """Continue a stored log, at its checkpoint.

        Args:
            storage: Where it lies.
            signer: The key of the log, whose name is the log's origin.
            former: Keys that may have signed the stored checkpoint instead, under the same name.
            last_known: A checkpoint that the log must extend, kept elsewhere: what shows that
                storage was not set back to an old copy.

        Returns:
            The log.

        Raises:
            LogStorageError: The log is missing, damaged, or not what its checkpoint says.
            LogFormatError: Its checkpoint is malformed.
            LogVerificationError: Its checkpoint is not signed by a key of the log.
            LogForkError: It does not extend `last_known`.
        """
        stored = read_checkpoint(storage, signer.name, [signer.verifier, *former])
        if last_known is not None:
            if last_known.origin != signer.name or last_known.size > stored.size:
                raise LogForkError(
                    f"the stored log of {stored.size} entries does not extend the checkpoint of "
                    f"{last_known.size} entries that is known; restore it"
                )
            LogReader(storage, stored).prove_consistency(last_known)
        return cls(storage, signer, stored)

    @property
    def size(self) -> int:
        """Entries, with those that are not published yet."""
        return self._edge.size

    def append(self, entry: bytes) -> int:
        """Add one entry, to be published.

        Args:
            entry: At most `MAX_ENTRY_BYTES` bytes, opaque to the log.

        Returns:
            Its index; not acknowledged before :meth:`publish` returned.

        Raises:
            LogRangeError: The entry is too long; nothing was added.
            LogStorageError: Writing failed earlier; open the log again.
        """
        return self.extend((entry,)).start

    def extend(self, entries: Sequence[bytes]) -> range:
        """Add many entries, to be published; full tiles are written at once.

        Args:
            entries: Each at most `MAX_ENTRY_BYTES` bytes.

        Returns:
            Their indices; not acknowledged before :meth:`publish` returned.

        Raises:
            LogRangeError: An entry is too long; nothing was added.
            LogStorageError: Writing failed earlier; open the log again.
        """
        self._check_usable()
        for entry in entries:
            check_entry(entry)
        first = self.size
        self._is_broken = True
        for start in range(0, len(entries), _CHUNK):
            self._extend_chunk(entries[start : start + _CHUNK])
        self._is_broken = False
        return range(first, self.size)

    def publish(self) -> VerifiedCheckpoint:
        """Store everything added, then sign and store the checkpoint over it.

        Returns:
            The new checkpoint; the last one where nothing was added.

        Raises:
            LogForkError: Another writer went on from the last checkpoint, or what is stored does
                not extend it; nothing was signed.
            LogStorageError: What is stored is not what was written, or writing failed earlier.
        """
        self._check_usable()
        if self.size == self.checkpoint.size:
            return self.checkpoint
        self._is_broken = True
        self._write_partial()
        checkpoint = Checkpoint(origin=self._signer.name, size=self.size, root=self._edge.root())
        self._check_extension(checkpoint)
        note = sign_checkpoint(checkpoint, [self._signer])
        self._storage.write(CHECKPOINT_PATH, note)
        self.checkpoint = open_checkpoint(note, self._signer.name, [self._signer.verifier])
        self._is_broken = False
        return self.checkpoint

    def _extend_chunk(self, entries: Sequence[bytes]) -> None:
        """Hash some entries and write the bundles and tiles that they fill."""
        complete = self._edge.extend(leaf_hashes(entries))
        first = (self.size - len(entries)) // TILE_WIDTH
        self._bundle += entries
        whole = len(self._bundle) - len(self._bundle) % TILE_WIDTH
        for place in range(0, whole, TILE_WIDTH):
            bundle = Bundle(index=first + place // TILE_WIDTH)
            data = format_bundle(self._bundle[place : place + TILE_WIDTH])
            self._storage.write(bundle.path, data)
        del self._bundle[:whole]
        for level, hashes in enumerate(complete[::TILE_HEIGHT]):
            self._fill_tiles(level, hashes)

    def _fill_tiles(self, level: int, hashes: list[bytes]) -> None:
        """Add hashes to a level and write the tiles that they fill."""
        if level == len(self._tiles):
            self._tiles.append([])
        row = self._tiles[level]
        row += hashes
        whole = len(row) - len(row) % TILE_WIDTH
        first = (self.size >> TILE_HEIGHT * (level + 1)) - whole // TILE_WIDTH
        for place in range(0, whole, TILE_WIDTH):
            tile = Tile(level=level, index=first + place // TILE_WIDTH)
            self._storage.write(tile.path, join_hashes(row[place : place + TILE_WIDTH]))
        del row[:whole]

    def _write_partial(self) -> None:
        """Write the bundle and the tiles that are not full."""
        if self._bundle:
            bundle = Bundle(index=self.size // TILE_WIDTH, width=len(self._bundle))
            self._storage.write(bundle.path, format_bundle(self._bundle))
        for level, row in enumerate(self._tiles):
            if row:
                index = self.size >> TILE_HEIGHT * (level + 1)
                tile = Tile(level=level, index=index, width=len(row))
                self._storage.write(tile.path, join_hashes(row))

    def _check_extension(self, checkpoint: Checkpoint) -> None:
        """Refuse to sign what is not stored, or does not extend the last checkpoint."""
        last = self.checkpoint
        if self._storage.read(CHECKPOINT_PATH) != last.note:
            raise LogForkError("another writer went on from the last checkpoint; stop one of them")
        nodes = TileNodes(self._storage, checkpoint.size)
        if CompactRange.of_nodes(nodes, checkpoint.size).root() != checkpoint.root:
            raise LogStorageError("the tiles that are stored are not those written; check storage")
        proof = consistency_proof(nodes, last.size, checkpoint.size)
        try:
            verify_consistency(last.size, last.root, checkpoint.size, checkpoint.root, proof)
        except (LogVerificationError, LogRangeError) as err:
            raise LogForkError(
                f"the log of {checkpoint.size} entries does not extend the one of {last.size} "
                "that was signed; nothing was signed"
            ) from err

    def _check_usable(self) -> None:
        """Refuse to go on where storage may hold something else than memory."""
        if self._is_broken:
            raise LogStorageError("writing failed earlier; open the log again")
