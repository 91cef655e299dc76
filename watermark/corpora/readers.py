"""From a span to records, one at a time; what is broken is said and passed over.

Rule 1: no more than one record or one piece of text is held. Rule 2: an offset counts bytes of the
file as it is without compression, rows of a table. Rule 3: a reason never quotes the file. Rule 4:
an error of one record costs that record.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from watermark.corpora import tables
from watermark.corpora.compression import PlainBytes
from watermark.corpora.fields import Document, FieldChoice
from watermark.corpora.remote import is_url
from watermark.corpora.sources import Compression, Format, open_source
from watermark.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from watermark.corpora.shards import Span

PIECE_BYTES: Final = 1 << 20
"""A text file is cut after this many bytes, at the next line end: each piece is a document."""
MAX_LINE_BYTES: Final = 64 << 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_ENDLESS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that could not be read, or records that were lost together.

    Attributes:
        file: Index of the file.
        offset: Where it starts.
        reason: Why; never its content.
        n_records: How many were lost, as far as the file says; 1 at least.
    """

    file: int
    offset: int
    reason: str
    n_records: int = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        file: Index of the file.
        offset: Where it starts.
        index: Its number in the span, from 0, broken ones counted.
        content: Its texts, or why there are none.
        stored_bytes: Bytes of the file, as stored, that were read up to its end.
        end: Where the next starts.
    """

    file: int
    offset: int
    index: int
    content: Document | Skipped
    stored_bytes: int
    end: int


def read_span(span: Span, choice: FieldChoice) -> Iterator[Record]:
    """Yield the records of a span, broken ones in their place.

    Raises:
        CorpusError: A package that the file needs is missing.
    """
    at, index = span.start, 0
    try:
        for record in _read(span, choice):
            yield record
            at, index = record.end, record.index + 1
    except CorpusError:
        raise
    except Exception as err:  # of the disk, of a store, of a damaged table
        if is_url(span.source.name) and not isinstance(err, ValueError):
            raise CorpusError(
                f"{span.source.name}: {type(err).__name__} from the store; check your access to "
                "it, and run the command again: it goes on where it stopped"
            ) from err
        lost = _lost(span, at, f"cannot be read any further ({type(err).__name__})")
        yield Record(span.file, at, index, lost, span.stored_bytes, span.stop)


def _lost(span: Span, at: int, reason: str) -> Skipped:
    """Return what stands for all that is left of a span: of a table the number of rows is known."""
    if span.source.format is Format.PARQUET and span.stop > at:
        n_rows = span.stop - at
        reason = f"{n_rows} row{'s' * (n_rows > 1)} from here {reason}"
        return Skipped(span.file, at, reason, n_rows)
    return Skipped(span.file, at, reason)


def _read(span: Span, choice: FieldChoice) -> Iterator[Record]:
    if span.source.format is Format.PARQUET:
        yield from _table(span, choice)
        return
    with open_source(span.source) as stored:
        yield from _stream(span, choice, stored)


def _table(span: Span, choice: FieldChoice) -> Iterator[Record]:
    """Yield the rows of a row group."""
    rows = tables.read_rows(span.source, span.group, choice.columns)
    share = span.stored_bytes / max(1, span.stop - span.start)
    for index, values in enumerate(rows):
        row = span.start + index
        content = _content(span.file, row, _document(values, choice))
        yield Record(span.file, row, index, content, int((index + 1) * share), row + 1)


def _document(values: object, choice: FieldChoice) -> Document | str:
    """Return the texts of a record, or why there are none, whatever the record is."""
    if isinstance(values, tables.BrokenRow):
        return values.reason
    try:
        return choice.document(values)
    except Exception as err:  # noqa: BLE001 - the other records of the file are not lost for one
        return f"cannot be read ({type(err).__name__})"


def _content(file: int, offset: int, found: Document | str) -> Document | Skipped:
    return Skipped(file, offset, found) if isinstance(found, str) else found


def _stream(span: Span, choice: FieldChoice, stored: BinaryIO) -> Iterator[Record]:
    """Yield the records of lines or of running text."""
    if span.source.compression is Compression.NONE:
        offset = _line_start(stored, span.start)
        yield from _records(span, choice, _Lines(stored, offset, span.stop))
        return
    plain = PlainBytes(stored, span.source.compression)
    lines = _Lines(io.BufferedReader(plain, PIECE_BYTES), 0, _ENDLESS, plain)
    for record in _records(span, choice, lines):
        yield replace(record, stored_bytes=plain.stored_position())


def _records(span: Span, choice: FieldChoice, lines: _Lines) -> Iterator[Record]:
    """Yield the records of one format, and what damage ended them."""
    contents = _json(lines, choice) if span.source.format is Format.JSONL else _text(lines)
    index = 0
    for offset, found in contents:
        content = _content(span.file, offset, found)
        read = lines.offset - span.start
        yield Record(span.file, offset, index, content, read, lines.offset)
        index += 1
    if lines.damage:
        skipped = Skipped(span.file, lines.offset, lines.damage)
        read = lines.offset - span.start
        yield Record(span.file, lines.offset, index, skipped, read, lines.offset)


def _line_start(stored: BinaryIO, start: int) -> int:
    """Go to the first line that starts at `start` or later, and return where that is."""
    if start == 0:
        return 0
    stored.seek(start - 1)
    while True:
        part = stored.readline(PIECE_BYTES)
        if part.endswith(b"\n") or not part:
            return stored.tell()


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


class _Lines:
    """Bytes of a span, by the line or by the piece.

    Attributes:
        offset: Where the next bytes start.
    """

    def __init__(
        self, stream: _Stream, start: int, stop: int, plain: PlainBytes | None = None
    ) -> None:
        self.offset = start
        self._stream = stream
        self._stop = stop
        self._plain = plain
        self._is_within_line = False  # of a line longer than a piece: it is read to its end

    @property
    def damage(self) -> str:
        """Return why the bytes ended; empty where nothing is wrong."""
        return self._plain.damage if self._plain is not None else ""

    def line(self) -> bytes | None:
        """Return the next line that this span owns; None at the end."""
        if self.offset >= self._stop:
            return None
        line = self._stream.readline(MAX_LINE_BYTES + 1)
        self.offset += len(line)
        if not line or (self.damage and not line.endswith(b"\n")):
            return None
        return line

    def skip_line(self) -> None:
        """Pass over what is left of a line."""
        while True:
            part = self._stream.readline(PIECE_BYTES)
            self.offset += len(part)
            if part.endswith(b"\n") or not part:
                return

    def piece(self) -> bytes:
        """Return the next piece of text, to a line end where one is near; none at the end."""
        left = self._stop - self.offset
        if left <= 0 and not self._is_within_line:
            return b""
        piece = self._stream.read(min(PIECE_BYTES, left)) if left > 0 else b""
        if not piece.endswith(b"\n"):
            piece += self._stream.readline(PIECE_BYTES)
        self._is_within_line = bool(piece) and not piece.endswith(b"\n")
        self.offset += len(piece)
        return piece


def _json(lines: _Lines, choice: FieldChoice) -> Iterator[tuple[int, Document | str]]:
    """Yield offset and texts, or what is wrong, of every line that is not empty."""
    while True:
        offset = lines.offset
        line = lines.line()
        if line is None:
            return
        if len(line) > MAX_LINE_BYTES:
            lines.skip_line()
            yield offset, f"the line is longer than {MAX_LINE_BYTES} bytes"
            continue
        if offset == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line.isspace():
            yield offset, _parse(line, choice)


def _parse(line: bytes, choice: FieldChoice) -> Document | str:
    try:
        values = msgspec.json.decode(line)
    except UnicodeDecodeError as err:
        return f"not UTF-8 at byte {err.start} of a string"
    except (msgspec.DecodeError, RecursionError):
        return "not JSON"
    return _document(values, choice)


def _text(lines: _Lines) -> Iterator[tuple[int, Document | str]]:
    """Yield offset and text of every piece, and of every line in it that is not UTF-8."""
    carried = b""
    while True:
        offset = lines.offset - len(carried)
        piece = lines.piece()
        if not piece:
            if carried:
                yield offset, "not UTF-8"
            return
        piece = carried + piece
        if offset == 0:
            piece = piece.removeprefix(_BYTE_ORDER_MARK)
        piece, carried = _split_character(piece)
        try:
            yield offset, Document((piece.decode(),))
        except UnicodeDecodeError:
            yield from _without_broken_lines(piece, offset)


def _split_character(piece: bytes) -> tuple[bytes, bytes]:
    """Part a character that was cut from a piece that does not end a line."""
    for back in range(1, min(4, len(piece) + 1)):
        byte = piece[-back]
        if byte < 0x80:  # noqa: PLR2004 - ASCII
            break
        if byte >= 0xC0:  # noqa: PLR2004 - the first byte of a character of 2 to 4
            length = 2 + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004 - as above
            if back < length:
                return piece[:-back], piece[-back:]
            break
    return piece, b""


def _without_broken_lines(piece: bytes, offset: int) -> Iterator[tuple[int, Document | str]]:
    """Yield what lies between broken lines, a reply each, and then the broken lines."""
    replies, broken = [""], []
    for line in piece.splitlines(keepends=True):
        try:
            replies[-1] += line.decode()
        except UnicodeDecodeError as err:
            broken.append(offset + err.start)
            replies.append("")
        offset += len(line)
    yield offset - len(piece), Document(tuple(filter(None, replies)))
    for at in broken:
        yield at, "a line is not UTF-8"
