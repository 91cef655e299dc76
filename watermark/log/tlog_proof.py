"""Proofs that travel as one file: an entry is in a log, checked with no one to ask.

Rule 1: the file holds everything but the entry and the keys, which the reader brings. Rule 2: the
optional extra line is nobody's word: no signature and no hash covers it.

Source: c2sp.org/tlog-proof, version 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.errors import LogFormatError
from watermark.log.checkpoint import VerifiedCheckpoint, open_checkpoint
from watermark.log.encoding import decode_base64, decode_number, decode_text, encode_base64
from watermark.log.hashing import leaf_hash
from watermark.log.note import MAX_NOTE_BYTES, parse_note
from watermark.log.proofs import VerifiedInclusion, verify_inclusion
from watermark.log.tree import MAX_SIZE, check_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.log.note import NoteVerifier

HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_HASHES: Final = 63  # levels of the largest tree
MAX_EXTRA_BYTES: Final = 64 * 1024
MAX_PROOF_BYTES: Final = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES

_EXTRA: Final = "extra "
_INDEX: Final = "index "


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """One proof whose form was checked and nothing else.

    Attributes:
        index: Where the entry is said to be.
        hashes: The inclusion proof, from the leaf's sibling up.
        checkpoint: The signed checkpoint, verbatim.
        extra: Bytes that nothing vouches for; empty for none.

    Raises:
        LogFormatError: A value cannot be written in a proof.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_SIZE:
            raise LogFormatError(f"an index is 0 to {MAX_SIZE - 1}")
        if len(self.hashes) > MAX_HASHES:
            raise LogFormatError(f"an inclusion proof has at most {MAX_HASHES} hashes")
        for value in self.hashes:
            check_hash(value, "a step of the proof")
        if len(self.extra) > MAX_EXTRA_BYTES:
            raise LogFormatError(f"the extra line of a proof carries {MAX_EXTRA_BYTES} bytes")
        parse_note(self.checkpoint)

    def format(self) -> bytes:
        """Return the file, best named with the ending `.tlog-proof`."""
        extra = [_EXTRA + encode_base64(self.extra)] if self.extra else []
        hashes = [encode_base64(value) for value in self.hashes]
        lines = [HEADER, *extra, f"{_INDEX}{self.index}", *hashes]
        return "".join(line + "\n" for line in lines).encode() + b"\n" + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Return the proof in a file.

        Raises:
            LogFormatError: It is not one.
        """
        head, blank, checkpoint = data.partition(b"\n\n")
        if len(data) > MAX_PROOF_BYTES or not blank:
            raise LogFormatError("a proof is some lines, an empty line and a checkpoint")
        form, *lines = decode_text(head, "a proof", MAX_PROOF_BYTES).split("\n")
        if form != HEADER:
            raise LogFormatError(f"a proof begins with the line {HEADER}")
        extra = b""
        if lines and lines[0].startswith(_EXTRA):
            extra = decode_base64(lines.pop(0)[len(_EXTRA) :], "the extra line of a proof")
            if not extra:
                raise LogFormatError("an extra line without data is left out")
        if not lines or not lines[0].startswith(_INDEX):
            raise LogFormatError("a proof has no index line")
        return cls(
            index=decode_number(lines[0][len(_INDEX) :], "the index of a proof", MAX_SIZE - 1),
            hashes=tuple(decode_base64(line, "a step of the proof") for line in lines[1:]),
            checkpoint=checkpoint,
            extra=extra,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEntry:
    """Shown: keys one trusts have signed a log that holds this entry.

    Attributes:
        entry: The entry.
        inclusion: Its place, and the tree it is in.
        checkpoint: The checkpoint, and who signed it.
    """

    entry: bytes
    inclusion: VerifiedInclusion
    checkpoint: VerifiedCheckpoint


def verify_tlog_proof(
    proof: TlogProof,
    entry: bytes,
    origin: str,
    verifiers: Sequence[NoteVerifier],
    *,
    quorum: int = 1,
) -> VerifiedEntry:
    """Return what a proof shows about an entry.

    Args:
        proof: The proof.
        entry: The entry that it is about.
        origin: The log that must hold it.
        verifiers: The keys that count.
        quorum: How many of them must have signed.

    Returns:
        The statement that was shown.

    Raises:
        LogFormatError: The checkpoint is malformed.
        LogVerificationError: The checkpoint or the inclusion does not hold.
    """
    signed = open_checkpoint(proof.checkpoint, origin, verifiers, quorum=quorum)
    inclusion = verify_inclusion(
        leaf_hash(entry), proof.index, signed.size, proof.hashes, signed.root
    )
    return VerifiedEntry(entry=entry, inclusion=inclusion, checkpoint=signed)
