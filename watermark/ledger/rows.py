"""What a ledger holds: one row when a reply begins, one when it ends, one for every gap.

Rule 1: a reply was delivered when it has an end; a beginning alone is open, and counts for
nothing. Rule 2: a row that occurs twice is one row: (reply, kind) names it, and whoever reads
takes the first. Rule 3: what is not a fact of the row's kind is null.

Source: `watermark/spec/ledger.md`, Rows.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

REPLY_BYTES: Final = 16
PSEUDONYM_BYTES: Final = 16
DIGEST_BYTES: Final = 32


class Kind(enum.IntEnum):
    """What a row says."""

    BEGIN = 1
    END = 2
    GAP = 3


class Keeps(enum.StrEnum):
    """What is kept of a reply beyond its length and digest."""

    CONTEXTS = "contexts"
    TOKENS = "tokens"
    NONE = "none"


class Outcome(enum.StrEnum):
    """How a reply ended.

    `VOID` says that nothing of it left: it was asked for and not given.
    """

    FINISH = "finish"
    ABORT = "abort"
    VOID = "void"


class Row(NamedTuple):
    """One row, as it stands in a file and in a segment; times are in microseconds since 1970.

    Attributes:
        seq: Its number in its file, from 1, without holes.
        kind: What it says.
        at_us: When it was handed to the writer.
        reply: The reply, 16 bytes.
        account: Pseudonym of who was served, 16 bytes; null for nobody known.
        conversation: Pseudonym of the conversation, 16 bytes.
        key_id: The key that marks.
        unit: The key's unit.
        tokenizer: The unit of the model's own tokens.
        model: As the client asked for it.
        path: How the mark gets in.
        keeps: What `contents` is; null in a beginning.
        outcome: How it ended.
        n_tokens: Tokens of free text handed over, over all choices.
        n_bytes: Bytes of the body handed over.
        digest: Their SHA-256.
        contents: By `keeps`; of a gap, its facts as JSON.
    """

    seq: int
    kind: int
    at_us: int
    reply: bytes | None = None
    account: bytes | None = None
    conversation: bytes | None = None
    key_id: str | None = None
    unit: str | None = None
    tokenizer: str | None = None
    model: str | None = None
    path: str | None = None
    keeps: str | None = None
    outcome: str | None = None
    n_tokens: int | None = None
    n_bytes: int | None = None
    digest: bytes | None = None
    contents: bytes | None = None


COLUMNS: Final = Row._fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What is known of a reply before its first token is chosen.

    Attributes:
        reply: Names it, 16 bytes.
        account: Pseudonym of who is served; None for nobody known.
        conversation: Pseudonym of the conversation.
        key_id: The key that marks.
        unit: The key's unit.
        tokenizer: The unit of the model's own tokens.
        model: As the client asked for it.
        path: How the mark gets in.
    """

    reply: bytes
    account: bytes | None
    conversation: bytes
    key_id: str
    unit: str
    tokenizer: str
    model: str
    path: str

    def row(self, at_us: int) -> Row:
        """Return the row, not yet numbered."""
        return Row(
            seq=0,
            kind=Kind.BEGIN,
            at_us=at_us,
            reply=self.reply,
            account=self.account,
            conversation=self.conversation,
            key_id=self.key_id,
            unit=self.unit,
            tokenizer=self.tokenizer,
            model=self.model,
            path=self.path,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What was handed over of a reply.

    Attributes:
        outcome: How it ended.
        n_tokens: Tokens of free text, over all choices.
        n_bytes: Bytes of the body.
        digest: Their SHA-256.
    """

    outcome: Outcome
    n_tokens: int
    n_bytes: int
    digest: bytes

    def row(self, at_us: int, begun: Beginning, keeps: Keeps, contents: bytes | None) -> Row:
        """Return the row, not yet numbered."""
        return Row(
            seq=0,
            kind=Kind.END,
            at_us=at_us,
            reply=begun.reply,
            account=begun.account,
            conversation=begun.conversation,
            key_id=begun.key_id,
            unit=begun.unit,
            keeps=keeps.value,
            outcome=self.outcome.value,
            n_tokens=self.n_tokens,
            n_bytes=self.n_bytes,
            digest=self.digest,
            contents=contents,
        )


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A time in which the ledger could not be written, or rows that are gone.

    Attributes:
        cause: One word, of `watermark/spec/ledger.md`, Gaps.
        file: The file that it is about; empty for none.
        detail: What the system called it; never a text of a caller's.
        since_us: Microseconds since 1970.
        until_us: Likewise; 0 where it is not known.
        refused: Replies that were not marked meanwhile.
        lost: Ends that could not be kept: their replies stay open.
    """

    cause: str
    file: str = ""
    detail: str = ""
    since_us: int = 0
    until_us: int = 0
    refused: int = 0
    lost: int = 0

    def row(self, at_us: int) -> Row:
        """Return the row, not yet numbered."""
        return Row(seq=0, kind=Kind.GAP, at_us=at_us, contents=msgspec.json.encode(self))


def gap_of(row: Row) -> Gap:
    """Return what a row of kind `GAP` says."""
    return msgspec.json.decode(row.contents or b"{}", type=Gap)
