"""Checkpoints: what a log signs about itself, its size and its root.

    example.com/log
    4
    <base64 of the root>

    — example.com/log <base64 of key id and signature>

Source: c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watermark.errors import LogFormatError, LogVerificationError
from watermark.log.encoding import check_line, decode_base64, decode_number, encode_base64
from watermark.log.hashing import EMPTY_ROOT
from watermark.log.note import open_note, sign_note
from watermark.log.tree import MAX_SIZE, check_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.log.note import NoteSigner, NoteVerifier

_MIN_LINES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The size and root of one log at one time; on its own it proves nothing.

    Attributes:
        origin: Which log: best a URL without its scheme.
        size: Leaves of the tree.
        root: Root of the tree, 32 bytes.
        extensions: Further lines, which nobody can audit; best none.

    Raises:
        LogFormatError: A value cannot be written in a checkpoint.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_line(self.origin, "the origin of a checkpoint")
        if not 0 <= self.size <= MAX_SIZE:
            raise LogFormatError(f"the size of a checkpoint is 0 to {MAX_SIZE}")
        check_hash(self.root, "the root of a checkpoint")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise LogFormatError("the root of an empty tree is the hash of nothing")
        for line in self.extensions:
            check_line(line, "an extension line of a checkpoint")

    def text(self) -> str:
        """Return what is signed."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(line + "\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint of a note's text.

        Raises:
            LogFormatError: It is not one.
        """
        *lines, rest = text.split("\n")
        if rest or len(lines) < _MIN_LINES:
            raise LogFormatError("a checkpoint is three lines or more, each with a line feed")
        return cls(
            origin=lines[0],
            size=decode_number(lines[1], "the size of a checkpoint", MAX_SIZE),
            root=decode_base64(lines[2], "the root of a checkpoint"),
            extensions=tuple(lines[_MIN_LINES:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCheckpoint:
    """A checkpoint that keys one trusts have signed.

    Attributes:
        checkpoint: What they signed.
        verified: The keys whose signatures held.
        note: The signed bytes, verbatim.
    """

    checkpoint: Checkpoint
    verified: tuple[NoteVerifier, ...]
    note: bytes

    @property
    def size(self) -> int:
        """Leaves of the tree."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """Root of the tree, 32 bytes."""
        return self.checkpoint.root


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[NoteSigner]) -> bytes:
    """Return a checkpoint as a signed note.

    This signs whatever it is given: a log goes through `Log.publish`, which signs extensions only.

    Args:
        checkpoint: What is signed.
        signers: The keys; the first is the log's own.

    Returns:
        The note.

    Raises:
        LogFormatError: There is no signer, or there are too many.
    """
    return sign_note(checkpoint.text(), signers)


def open_checkpoint(
    data: bytes, origin: str, verifiers: Sequence[NoteVerifier], *, quorum: int = 1
) -> VerifiedCheckpoint:
    """Return the checkpoint of a note that keys one trusts have signed.

    Args:
        data: The note.
        origin: The log that it must speak of.
        verifiers: The keys that count.
        quorum: How many of them must have signed.

    Returns:
        The checkpoint and who signed it.

    Raises:
        LogFormatError: The bytes are not a signed checkpoint.
        LogVerificationError: A signature does not hold, too few signed, or it is another log's.
    """
    note = open_note(data, verifiers, quorum=quorum)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise LogVerificationError(f"the checkpoint is another log's, not one of {origin!r}")
    return VerifiedCheckpoint(checkpoint=checkpoint, verified=note.verified, note=data)
