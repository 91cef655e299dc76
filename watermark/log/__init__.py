"""The append-only Merkle log, in the C2SP form of tiles, checkpoints and proofs.

Pure: no file, no clock, no entropy. Files are a small protocol that the caller implements, keys
and bytes are arguments. An entry is opaque here; what entries mean is decided above.

Write with :class:`Log`, read and prove with :class:`LogReader`, check a proof that came alone
with :func:`verify_tlog_proof`. What verifies returns a value that says what was shown, or raises.
The form is specified in `watermark/spec/log.md`.
"""

from watermark.log.checkpoint import (
    Checkpoint,
    VerifiedCheckpoint,
    open_checkpoint,
    sign_checkpoint,
)
from watermark.log.hashing import EMPTY_ROOT, HASH_BYTES, leaf_hash, leaf_hashes, node_hash
from watermark.log.note import (
    Note,
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    VerifiedNote,
    open_note,
    parse_note,
    sign_note,
)
from watermark.log.proofs import (
    VerifiedConsistency,
    VerifiedInclusion,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from watermark.log.reader import LogReader, read_checkpoint
from watermark.log.storage import MemoryStorage, Storage, TileNodes
from watermark.log.tiles import (
    CHECKPOINT_PATH,
    MAX_ENTRY_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Bundle,
    Tile,
    bundles_of,
    format_bundle,
    parse_bundle,
    parse_tile,
    parse_tile_path,
    tile_width,
    tiles_of,
)
from watermark.log.tlog_proof import TlogProof, VerifiedEntry, verify_tlog_proof
from watermark.log.tree import MAX_SIZE, CompactRange, MerkleTree, Nodes, range_hash
from watermark.log.writer import Log

__all__ = [
    "CHECKPOINT_PATH",
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MAX_ENTRY_BYTES",
    "MAX_SIZE",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "Bundle",
    "Checkpoint",
    "CompactRange",
    "Log",
    "LogReader",
    "MemoryStorage",
    "MerkleTree",
    "Nodes",
    "Note",
    "NoteSignature",
    "NoteSigner",
    "NoteVerifier",
    "Storage",
    "Tile",
    "TileNodes",
    "TlogProof",
    "VerifiedCheckpoint",
    "VerifiedConsistency",
    "VerifiedEntry",
    "VerifiedInclusion",
    "VerifiedNote",
    "bundles_of",
    "consistency_proof",
    "format_bundle",
    "inclusion_proof",
    "leaf_hash",
    "leaf_hashes",
    "node_hash",
    "open_checkpoint",
    "open_note",
    "parse_bundle",
    "parse_note",
    "parse_tile",
    "parse_tile_path",
    "range_hash",
    "read_checkpoint",
    "sign_checkpoint",
    "sign_note",
    "tile_width",
    "tiles_of",
    "verify_consistency",
    "verify_inclusion",
    "verify_tlog_proof",
]
