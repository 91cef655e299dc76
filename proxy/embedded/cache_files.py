"""Files that can be rebuilt: written whole or not at all, and read only if undamaged.

Two processes may write the same file at once: each writes its own temporary file and renames it
into place, and both files are the same.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_DIGEST_BYTES: Final = 32


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def pack_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the arrays as bytes behind their own SHA-256; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    return hashlib.sha256(content).digest() + content


def unpack_arrays(content: bytes) -> dict[str, NDArray[np.generic]] | None:
    """Return what `pack_arrays` packed, or None if the bytes are cut short or damaged."""
    digest, packed = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(packed).digest() != digest:
        return None
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        return dict(arrays)


def read_file(path: Path) -> bytes | None:
    """Return the file's bytes, or None if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None
