"""Numbers and arrays as bytes: a line that names the form, a header, the arrays as they are.

Nothing is executed when they are read, whoever wrote them.

Source: `watermark/spec/scan.md`, Blocks.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from watermark.errors import ScanJournalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MAGIC: Final = b"output-watermark-scan-block/v1\n"
_LENGTH: Final = struct.Struct("<I")


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """One array of a block: its type, as numpy writes it, its lengths, and where it starts."""

    dtype: str
    lengths: tuple[int, ...]
    offset: int


class _Head(msgspec.Struct, frozen=True):
    header: dict[str, Any]
    arrays: list[Shape]


def pack(header: dict[str, Any], arrays: Sequence[NDArray[Any]]) -> bytes:
    """Return the bytes of a header and of arrays."""
    shapes, parts, offset = [], [], 0
    for array in arrays:
        data = np.ascontiguousarray(array).tobytes()
        shapes.append(Shape(array.dtype.str, array.shape, offset))
        parts.append(data)
        offset += len(data)
    head = msgspec.msgpack.encode(_Head(header, shapes))
    return b"".join((MAGIC, _LENGTH.pack(len(head)), head, *parts))


def unpack(data: bytes) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return header and arrays.

    Raises:
        ScanJournalError: The bytes are not those of a block.
    """
    head, body = _head(data)
    view = memoryview(data)[body:]
    try:
        arrays = [_array(view, shape) for shape in head.arrays]
    except (ValueError, TypeError) as err:
        raise ScanJournalError("a block is damaged; remove it, and scan again") from err
    return head.header, arrays


def read_head(path: Path) -> tuple[dict[str, Any], list[Shape]]:
    """Return the header of a block's file, and where its arrays are, from the file's start.

    Raises:
        ScanJournalError: The file is not a block, or not whole.
    """
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + _LENGTH.size)
        length = _LENGTH.unpack(start[-_LENGTH.size :])[0] if len(start) > _LENGTH.size else 0
        head, body = _head(start + file.read(length), str(path))
        size = file.seek(0, 2)
    shapes = [Shape(one.dtype, one.lengths, one.offset + body) for one in head.arrays]
    if size != max([body, *(one.offset + _size(one) for one in shapes)]):
        raise ScanJournalError(f"{path} is not whole; remove it, and scan again")
    return head.header, shapes


def read_rows(path: Path, shape: Shape, start: int, stop: int) -> NDArray[Any]:
    """Return some rows of one array of a file."""
    row = int(np.prod(shape.lengths[1:], dtype=np.int64))
    dtype = np.dtype(shape.dtype)
    offset = shape.offset + start * row * dtype.itemsize
    flat = np.fromfile(path, dtype, (stop - start) * row, offset=offset)
    return flat.reshape(stop - start, *shape.lengths[1:])


def _head(data: bytes, name: str = "a block") -> tuple[_Head, int]:
    start = len(MAGIC) + _LENGTH.size
    if not data.startswith(MAGIC) or len(data) < start:
        raise ScanJournalError(f"{name} is not a block of a scan; remove it, and scan again")
    body = start + _LENGTH.unpack_from(data, len(MAGIC))[0]
    try:
        return msgspec.msgpack.decode(data[start:body], type=_Head), body
    except msgspec.DecodeError as err:
        raise ScanJournalError(f"{name} is damaged; remove it, and scan again") from err


def _size(shape: Shape) -> int:
    return int(np.prod(shape.lengths, dtype=np.int64)) * np.dtype(shape.dtype).itemsize


def _array(body: memoryview, shape: Shape) -> NDArray[Any]:
    part = body[shape.offset : shape.offset + _size(shape)]
    return np.frombuffer(part, np.dtype(shape.dtype)).reshape(shape.lengths)
