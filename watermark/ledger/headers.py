"""The header of a segment: what is sealed, what came before, and what is missing.

Rule 1: a header is signed as the key log's checkpoints are. Rule 2: headers of a node are numbered
from 1, and each names the one before by its digest, so that none can be taken out or changed
unseen. Rule 3: a gap is a fact that is signed with the rest.

Source: `watermark/spec/ledger.md`, Segments; c2sp.org/signed-note.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from watermark.errors import LogError, SegmentError
from watermark.ledger.rows import Gap  # noqa: TC001 - msgspec decodes by it
from watermark.log import open_note, sign_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watermark.ledger.rows import Row
    from watermark.log import NoteSigner, NoteVerifier

FORM: Final = "output-watermark-ledger-segment/v1"
NO_DIGEST: Final = "0" * 64
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class SealedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of rows that went into a segment.

    Attributes:
        worker: The worker's place.
        sequence: Which of that place's files.
        rows: Rows taken from it.
    """

    worker: _Count
    sequence: _Count
    rows: _Count


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed of a segment.

    Attributes:
        node: Whose segment it is.
        number: Counts the node's segments, from 1.
        previous: SHA-256 of the header before, as it was signed; zeros for the first.
        segment: SHA-256 of the Parquet file, which is its name.
        n_bytes: Its size.
        root: RFC 6962's tree hash over the rows.
        rows: How many.
        begins: How many say that a reply began.
        ends: How many say that one ended.
        since_us: Time of the first row, in microseconds since 1970; 0 for none.
        until_us: Of the last.
        sealed_us: When it was sealed.
        files: What went into it.
        heads: The last sequence of every worker that is sealed by now.
        gaps: What is missing, as far as it is known.
        expired: Segments up to this number were removed for their age.
    """

    node: str
    number: _Count
    previous: _Digest
    segment: _Digest
    n_bytes: _Count
    root: _Digest
    rows: _Count
    begins: _Count
    ends: _Count
    since_us: _Count
    until_us: _Count
    sealed_us: _Count
    files: tuple[SealedFile, ...]
    heads: dict[str, int]
    gaps: tuple[Gap, ...]
    expired: _Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHeader:
    """A header whose signature holds.

    Attributes:
        header: The header.
        note: The signed bytes.
    """

    header: Header
    note: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the signed bytes, by which the next header names this one."""
        return hashlib.sha256(self.note).hexdigest()

    def entry(self) -> bytes:
        """Return the key log's entry of this segment."""
        header = self.header
        lines = (
            FORM,
            f"node: {header.node}",
            f"number: {header.number}",
            f"root: {header.root}",
            f"header: {self.digest}",
        )
        return "".join(f"{line}\n" for line in lines).encode()


def sign_header(header: Header, signer: NoteSigner) -> SignedHeader:
    """Sign a header."""
    body = msgspec.json.encode(header, order="deterministic").decode()
    return SignedHeader(header=header, note=sign_note(f"{FORM}\n{body}\n", [signer]))


def open_header(note: bytes, verifier: NoteVerifier) -> SignedHeader:
    """Read a signed header.

    Raises:
        SegmentError: It is malformed, or not signed by that key.
    """
    try:
        text = open_note(note, [verifier]).text
    except LogError as err:
        raise SegmentError(f"a header of the ledger does not hold: {err}; restore it") from err
    form, _, body = text.partition("\n")
    try:
        if form != FORM:
            raise SegmentError(f"a header has the form {form!a}, not {FORM}; upgrade")
        return SignedHeader(header=msgspec.json.decode(body, type=Header), note=note)
    except msgspec.DecodeError as err:
        raise SegmentError(f"a signed header is malformed: {err}; upgrade") from err


def check_next(before: SignedHeader | None, after: SignedHeader) -> None:
    """Hold a header against the one before.

    Raises:
        SegmentError: It does not follow it.
    """
    header = after.header
    number = 1 if before is None else before.header.number + 1
    previous = NO_DIGEST if before is None else before.digest
    if header.number != number or header.previous != previous:
        raise SegmentError(
            f"header {header.number} of node {header.node} does not follow header {number - 1}; "
            "one was taken out or changed"
        )
    if before is not None and header.node != before.header.node:
        raise SegmentError(f"header {number} names node {header.node!a}, the one before another")


def leaves(node: str, worker: int, sequence: int, rows: Sequence[Row]) -> list[bytes]:
    """Return what the root is over: each row as MessagePack, after node, worker and sequence."""
    return [msgspec.msgpack.encode((node, worker, sequence, *row)) for row in rows]
