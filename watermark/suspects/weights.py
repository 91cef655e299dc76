"""Which weights a folder or a file holds, told without reading all of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Final

from watermark.errors import SuspectError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECES: Final = 16
_PIECE: Final = 1 << 16
_DIGITS: Final = 16


def weights_digest(path: Path) -> str:
    """Return what tells weights from others, 16 hex digits: names, sizes and pieces of all files.

    It tells whether a run goes on with the model it began with; against whoever forges weights
    on purpose it proves nothing.

    Args:
        path: A model folder, or a file.

    Raises:
        SuspectError: A file cannot be read.
    """
    digest = hashlib.sha256()
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    try:
        for one in files:
            name = one.relative_to(path).as_posix() if path.is_dir() else ""
            digest.update(f"{name}\0{one.stat().st_size}\0".encode())
            digest.update(_pieces(one))
    except OSError as err:
        raise SuspectError(f"cannot read {err.filename}: {err.strerror}; correct it") from err
    return digest.hexdigest()[:_DIGITS]


def _pieces(file: Path) -> bytes:
    """Return a small file, and of a large one pieces from all over."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size <= _PIECES * _PIECE:
            stream.seek(0)
            return stream.read()
        found = b""
        for number in range(_PIECES):
            stream.seek(number * (size - _PIECE) // (_PIECES - 1))
            found += stream.read(_PIECE)
        return found


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Let weights work, and say what helps where they fail.

    Raises:
        SuspectError: They fail; most often memory runs out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as err:
        raise SuspectError(
            f"the suspect's weights fail ({type(err).__name__}); where memory ran out, make room, "
            "take a larger machine, or run on the CPU (CUDA_VISIBLE_DEVICES= before the command)"
        ) from err
