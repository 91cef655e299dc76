"""Compressed bytes to plain ones; damage ends the bytes and is remembered, never lost.

Only this file knows the package zstandard (extra `corpora`).
"""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any, BinaryIO, Final, Protocol, cast

from watermark.corpora.extras import need
from watermark.corpora.sources import Compression

_READ_BYTES: Final = 1 << 18
_FRAME_BYTES: Final = 1 << 12  # a block of 4 bytes may hold 128 KiB: what is fed at once is bounded


class _Readable(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class _Zstandard:
    """The frames of a file, one after another; a frame that stops short is an error."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored = stored
        self._package = need("zstandard", "corpora", ".zst files")
        self._frame: Any = None
        self._ahead = b""

    def read1(self, size: int, /) -> bytes:
        """Return some bytes; none at the end.

        Raises:
            EOFError: The file ends within a frame.
            OSError: The bytes are not those of zstandard.
        """
        plain = b""
        while not plain:
            data = self._ahead or self._stored.read(min(size, _FRAME_BYTES))
            self._ahead = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the file ends within a frame")
                return b""
            frame = self._frame or self._package.ZstdDecompressor().decompressobj()
            try:
                plain = frame.decompress(data)
            except self._package.ZstdError as err:
                raise OSError("not zstandard") from err
            self._frame = None if frame.eof else frame
            if frame.eof:
                self._ahead = frame.unused_data
        return plain


class PlainBytes(io.RawIOBase):
    """Decompressed bytes that end where the file is damaged.

    Attributes:
        damage: Why they ended; empty where nothing is wrong.
    """

    def __init__(self, stored: BinaryIO, compression: Compression) -> None:
        """Start reading.

        Raises:
            CorpusError: A package is missing.
        """
        self.damage = ""
        self._stored = stored
        self._source: _Readable
        if compression is Compression.GZIP:
            self._source = cast("_Readable", gzip.GzipFile(fileobj=stored, mode="rb"))
        else:
            self._source = _Zstandard(stored)
        self._left = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def stored_position(self) -> int:
        """Return how far the stored bytes have been read."""
        return self._stored.tell()

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - Buffer, from Python 3.12 on
        """Fill a buffer, as far as there are bytes."""
        view = memoryview(buffer).cast("B")
        if not self._left and not self.damage:
            try:
                self._left = self._source.read1(_READ_BYTES)
            except EOFError:
                self.damage = "the compressed file ends too early"
            except (OSError, zlib.error):
                self.damage = "the compressed file is damaged"
        given, self._left = self._left[: len(view)], self._left[len(view) :]
        view[: len(given)] = given
        return len(given)
